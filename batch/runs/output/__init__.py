"""From journals to the output that the job asked for: committed parts, then one file or folder of results."""
