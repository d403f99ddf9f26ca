"""Folders as other programs write them: which of their files are data, and which columns their names give."""
