"""Ids that nobody asked for and that repeat."""

from typing import NamedTuple


class SharedIds(NamedTuple):
    """Rows of one shard whose id, which nobody asked for, an earlier row has: the column is data then, in all rows."""

    rows: int
    """How many."""
    column: str
    """Where the first of them has it."""
    place: str
    """`<file>:<line>` of the first of them."""
    earlier: str
    """The same of the row that has its id."""
