"""Runs field cases, small inputs and endpoints made after public bug reports, and prints whether each behaves."""
