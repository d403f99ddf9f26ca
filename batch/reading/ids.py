"""The user's id of a row."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from batch.reading.exact import exact_int
from batch.reading.invalid import InvalidRow, type_name
from schemas.job import InputSpec

DEFAULT_COLUMNS: Final = ("custom_id", "id")
BATCH_COLUMN: Final = "custom_id"
# Floats beyond this are not all the whole number that was written.
_EXACT = 2.0**53
# After the column in `RowId.found`: what stood there was a number; the file's name stands before the id.
_NUMBER, _PER_FILE = ":number", ":file"


class RowId(NamedTuple):
    """An id that the user gave."""

    id: str
    """The id; with `id_scope: file`, `<file>:<id>`."""

    column: str
    """Column it stands in."""

    found: str | None
    """What `column_and_value` takes; `None`: the job asks for this column, or OpenAI's format does."""


class IdRule:
    """Where the ids of a job's rows come from."""

    def __init__(self, spec: InputSpec) -> None:
        self._column = spec.id_column
        self._per_file = spec.id_scope == "file"

    def of(self, record: Mapping[str, Any], file: str, *, batch_line: bool) -> RowId | None:
        """The id in `id_column`, else in `custom_id`, else in `id`; `None` where one has to be made up.

        Raises InvalidRow when `id_column` holds no string or whole number, and for a batch line whose `custom_id` is
        missing or no string. Where no column was asked for, one that holds no id is a column like any other.
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
    """The id of a row whose user gave none."""
    return f"{file}:{line}"


def column_of(found: str) -> str:
    """The column that an id was found in, by `RowId.found`."""
    return found.partition(":")[0]


def column_value(found: str, row_id: str, file: str) -> str | int:
    """The value that stood in that column."""
    text = row_id.removeprefix(f"{file}:") if found.endswith(_PER_FILE) else row_id
    return exact_int(int(text)) if _NUMBER in found else text


def _required(record: Mapping[str, Any], column: str) -> Any:
    value = record.get(column)
    if value is None or value == "" or value != value:  # only NaN differs from itself
        raise InvalidRow("missing_id", f"{column} is {'blank' if column in record else 'missing'}")
    return value


def _as_id(value: object) -> str | None:
    """The text of an id: 1.0, as tables with gaps have it, is the whole number 1; `None`: it is no id."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return None
