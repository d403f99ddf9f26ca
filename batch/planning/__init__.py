"""From scores to a model per row: pure functions over numpy arrays."""
