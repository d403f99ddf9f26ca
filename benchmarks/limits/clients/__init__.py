"""Clients to be measured, each in a process of its own, all given the same batch."""
