"""Columns from folder names: `data/lang=en/year=2024/part-0.parquet` gives the columns `lang` and `year`."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

Value = str | int | None
Partition = tuple[tuple[str, str | None], ...]
"""Columns of one file with their values as text; `None` stands for Hive's null."""

NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"-?[0-9]+")
_INT32 = range(-(2**31), 2**31)


def partition_of(root: str, inner: str) -> Partition:
    """Return the columns that the folders of one file give.

    Args:
        root: the folder that the user named. If its own name is `key=value`, it gives a column too, and so do such
            folders directly above it.
        inner: the file's path below `root`.
    """
    above: list[str] = []
    for name in reversed(root.rstrip("/").split("/")):
        if "=" not in name:
            break
        above.insert(0, name)
    columns: dict[str, str | None] = {}
    for folder in (*above, *inner.split("/")[:-1]):
        key, equals, value = folder.partition("=")
        if equals and key:
            columns[unquote(key)] = None if value == NULL else unquote(value)
    return tuple(columns.items())


def with_types(partitions: Sequence[Partition]) -> list[tuple[tuple[str, Value], ...]]:
    """Give the values types, as pandas and PyArrow do: whole numbers if all values of a column are (and fit 32 bits),
    else text.
    """
    texts = {key for partition in partitions for key, value in partition if not _is_whole(value)}
    return [
        tuple((key, value if value is None or key in texts else int(value)) for key, value in partition)
        for partition in partitions
    ]


def _is_whole(value: str | None) -> bool:
    return value is None or (_WHOLE.fullmatch(value) is not None and len(value) <= 11 and int(value) in _INT32)
