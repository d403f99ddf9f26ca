"""Prompt files -> stable shards -> Arrow tables of canonical columns."""
