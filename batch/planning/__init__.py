"""Chooses a model for every row from scores: pure functions over numpy arrays."""
