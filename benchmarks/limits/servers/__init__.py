"""Servers that hold limits and count, each in a process of its own. Nothing of `batch` is used in them."""
