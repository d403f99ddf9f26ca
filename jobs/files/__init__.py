"""Loading of spec files: YAML, checked, with paths relative to the file."""
