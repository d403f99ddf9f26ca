"""The user's id of a row."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from batch.reading.exact import exact_int
from batch.reading.invalid import InvalidRow, type_name
from schemas.job import InputSpec

DEFAULT_COLUMNS: Final = ("custom_id", "id")
BATCH_COLUMN: Final = "custom_id"
# Above 2**53, a float no longer represents every whole number.
_EXACT = 2.0**53
# Suffixes of the column in `RowId.found`: the value was a number; the id begins with the file's name.
_NUMBER, _PER_FILE = ":number", ":file"


class RowId(NamedTuple):
    """An id that the user gave."""

    id: str
    """The id; with `id_scope: file`, `<file>:<id>`."""

    column: str
    """Column it stands in."""

    found: str | None
    """The column, with suffixes that `column_of` and `column_value` read; `None` if the job names this column, or
    OpenAI's batch format does."""


class IdRule:
    """Finds the ids of a job's rows."""

    def __init__(self, spec: InputSpec) -> None:
        self._column = spec.id_column
        self._per_file = spec.id_scope == "file"

    def of(self, record: Mapping[str, Any], file: str, *, batch_line: bool) -> RowId | None:
        """Return the id from `id_column`, else from `custom_id`, else from `id`; `None` if the row needs a made-up id.

        If the job names no column, a `custom_id` or `id` that cannot be an id is treated as ordinary data.

        Raises:
            InvalidRow: `id_column` holds neither a string nor a whole number, or a batch line's `custom_id` is missing
                or not a string.
        """
        column = self._column
        if column == "none":
            return None
        if batch_line:
            custom_id = _required(record, BATCH_COLUMN)
            if not isinstance(custom_id, str):
                raise InvalidRow("wrong_type", f"custom_id must be a string, not {type_name(custom_id)}")
            if column is None:
                return self._id(custom_id, BATCH_COLUMN, file, None)
        if column is not None:
            text = _as_id(_required(record, column))
            if text is None:
                what = type_name(record[column])
                what = "a fraction" if what == "a number" else what
                raise InvalidRow("wrong_type", f"{column} must be a string or a whole number, not {what}")
            return self._id(text, column, file, None)
        for name in DEFAULT_COLUMNS:
            value = record.get(name)
            text = _as_id(value)
            if text:
                found = name if isinstance(value, str) else name + _NUMBER
                return self._id(text, name, file, found + _PER_FILE if self._per_file else found)
        return None

    def _id(self, text: str, column: str, file: str, found: str | None) -> RowId:
        return RowId(f"{file}:{text}" if self._per_file else text, column, found)


def made_up_id(file: str, line: int) -> str:
    """The id of a row for which the user gave none."""
    return f"{file}:{line}"


def column_of(found: str) -> str:
    """The column in which an id was found, from `RowId.found`."""
    return found.partition(":")[0]


def column_value(found: str, row_id: str, file: str) -> str | int:
    """The value in that column: the number if it was one, without the file name that `id_scope: file` put before it."""
    text = row_id.removeprefix(f"{file}:") if found.endswith(_PER_FILE) else row_id
    return exact_int(int(text)) if _NUMBER in found else text


def _required(record: Mapping[str, Any], column: str) -> Any:
    value = record.get(column)
    if value is None or value == "" or value != value:  # only NaN differs from itself
        raise InvalidRow("missing_id", f"{column} is {'blank' if column in record else 'missing'}")
    return value


def _as_id(value: object) -> str | None:
    """The id as text, or `None` if the value cannot be an id. 1.0 counts as 1: tables with gaps store it so."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return None
