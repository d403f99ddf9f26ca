"""Reads what servers write: error codes, waits, usage, JSON that is not quite valid, and event streams."""
