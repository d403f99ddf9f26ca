"""The user's id of a row."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from batch.reading.invalid import InvalidRow, type_name

DEFAULT_COLUMNS = ("custom_id", "id")


class RowId(NamedTuple):
    """An id that the user gave."""

    id: str
    """The id."""

    column: str
    """Column it stands in."""


def row_id(record: Mapping[str, Any], id_column: str | None, *, batch_line: bool) -> RowId | None:
    """The id in `id_column`, else in `custom_id`, else in `id`; `None` where one has to be made up.

    Raises InvalidRow when `id_column` holds no string or number, and for a batch line whose `custom_id` is
    missing or no string. Where no column was asked for, one that holds no id is a column like any other.
    """
    if batch_line:
        custom_id = _required(record, "custom_id")
        if not isinstance(custom_id, str):
            raise InvalidRow("wrong_type", f"custom_id must be a string, not {type_name(custom_id)}")
        if id_column is None:
            return RowId(custom_id, "custom_id")
    if id_column is not None:
        value = _required(record, id_column)
        if not _is_id(value):
            raise InvalidRow("wrong_type", f"{id_column} must be a string or a whole number, not {type_name(value)}")
        return RowId(str(value), id_column)
    for column in DEFAULT_COLUMNS:
        value = record.get(column)
        if value != "" and _is_id(value):
            return RowId(str(value), column)
    return None


def _required(record: Mapping[str, Any], column: str) -> Any:
    value = record.get(column)
    if value is None or value == "":
        raise InvalidRow("missing_id", f"{column} is {'blank' if column in record else 'missing'}")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)
