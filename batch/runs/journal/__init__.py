"""The journal: what was sent for each row and what came of it, appended before anything trusts it."""
