"""The journal: what was sent for each row and how it ended, written before any later step relies on it."""
