"""Folders as other programs write them: what in them is data, and what their names say about it."""
