"""Duplicate ids in a column that the job does not ask for."""

from typing import NamedTuple


class SharedIds(NamedTuple):
    """The rows of one shard whose id an earlier row has, in a column that the job does not ask for.

    Such a column cannot hold ids: in all rows of the input it becomes data that is carried, and ids are made up.
    """

    rows: int
    """How many such rows there are."""
    column: str
    """The column in which the first of them has its id."""
    place: str
    """`<file>:<line>` of the first of them."""
    earlier: str
    """`<file>:<line>` of the earlier row with the same id."""
