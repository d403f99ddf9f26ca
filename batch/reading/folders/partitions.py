"""Columns that stand in folder names, as `data/lang=en/year=2024/part-0.parquet` has `lang` and `year`."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

Value = str | int | None
Partition = tuple[tuple[str, str | None], ...]
"""Columns of one file and their values as written; None is Hive's word for null."""

NULL = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"-?[0-9]+")
_INT32 = range(-(2**31), 2**31)


def partition_of(root: str, inner: str) -> Partition:
    """The columns in the folders of one file.

    Args:
        root: the folder that the user named. It belongs to a table too where its own name is `key=value`, and so do
            such folders right above it.
        inner: path of the file below it.
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


def typed(partitions: Sequence[Partition]) -> list[tuple[tuple[str, Value], ...]]:
    """The same with types, as pandas and PyArrow have them: a column is whole numbers where all its values are (and
    fit 32 bits), else text.
    """
    texts = {key for partition in partitions for key, value in partition if not _is_whole(value)}
    return [
        tuple((key, value if value is None or key in texts else int(value)) for key, value in partition)
        for partition in partitions
    ]


def _is_whole(value: str | None) -> bool:
    return value is None or (_WHOLE.fullmatch(value) is not None and len(value) <= 11 and int(value) in _INT32)
