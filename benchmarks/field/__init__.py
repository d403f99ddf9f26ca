"""Runs a folder of field cases (small inputs and endpoints after public bug reports) and prints a table of verdicts."""
