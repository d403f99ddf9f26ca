"""Hints for files that are one JSON object with all rows inside it, which are not read."""

import re
from collections.abc import Mapping
from typing import Any

# Depth to which the list of rows is searched, as in {"data": {"rows": [...]}}.
_DEEPEST = 3
# Members that hold a list of objects within a single request.
_OF_ONE_ROW = frozenset({"messages", "conversation", "conversations", "input", "prompt", "tools", "functions"})
# Keys that jq accepts unquoted after a full stop, and that are safe to print.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,60}")


def rows_inside(record: Mapping[str, Any]) -> str | None:
    """Return how to unpack the rows that a file's only object seems to hold; `None` if the object seems to be a row.

    The rows may be a list of objects, or pandas' columns (`to_json` without `orient`, or with `list` or `split`).
    """
    if _is_columns(record):
        return 'it looks like the columns of a table: write its rows with df.to_json(..., orient="records", lines=True)'
    path = _path(record, 1)
    if path is None:
        return None
    return f"the rows seem to be in a list within it: write one a line, as `jq -c '{path}'` does"


def _path(record: Mapping[str, Any], depth: int) -> str | None:
    """Return the jq filter for the items of the first list of objects; `None` if there is none."""
    for key, value in record.items():
        if key in _OF_ONE_ROW or not _PLAIN.fullmatch(key):
            continue
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            # Hugging Face's dataset server stores each row under `row`.
            return f".{key}[].row" if all(isinstance(item.get("row"), dict) for item in value) else f".{key}[]"
        if isinstance(value, dict) and depth < _DEEPEST:
            below = _path(value, depth + 1)
            if below is not None:
                return f".{key}{below}"
    return None


def _is_columns(record: Mapping[str, Any]) -> bool:
    values = list(record.values())
    if {"columns", "data"} <= record.keys() and all(isinstance(record[key], list) for key in ("columns", "data")):
        return all(isinstance(row, list) for row in record["data"])
    if values and all(isinstance(value, dict) and value for value in values):
        return len({tuple(value) for value in values}) == 1 and all(key.isdecimal() for key in values[0])
    # A single list may be anything; two lists of equal length with plain values are columns.
    return (
        len(values) > 1
        and all(isinstance(value, list) and len(value) > 1 for value in values)
        and len({len(value) for value in values}) == 1
        and not any(isinstance(item, dict | list) for value in values for item in value)
    )
