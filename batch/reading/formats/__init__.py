"""File formats: one module per format, and modules that recognize the format of a file."""
