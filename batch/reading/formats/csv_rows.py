"""Converts a CSV file into lines of JSON, which can be cut into shards."""

from collections.abc import Iterable, Iterator, Sequence

import orjson

from batch.errors import InputError
from batch.reading.formats.csv_dialect import Opened, open_csv
from batch.reading.formats.csv_records import Record, csv_records
from batch.reading.invalid import InvalidKind
from schemas.job import CsvSpec


def csv_rows(name: str, chunks: Iterable[bytes], spec: CsvSpec, limit: int | None, *, tabs: bool) -> Iterator[bytes]:
    """Yield `[line, record]`, or `[line, null, kind, message]`, for each record of the file; values are text or null.

    A record whose number of fields differs from the header's makes only its own row invalid, since its end is clear.

    Args:
        name: the file's name, for messages.
        chunks: its decompressed bytes.
        limit: number of rows after which reading may stop.
        tabs: whether its name says that tabs separate the fields (.tsv).

    Raises:
        InputError: quotes or header are wrong, so that the rows cannot be told apart.
    """
    opened = open_csv(name, chunks, spec, tabs=tabs)
    columns = None if spec.columns is None else _Columns(name, spec.columns, opened, "input.csv.columns has")
    rows = 0
    for first, last, record in csv_records(name, opened, spec):
        if columns is None:
            columns = _Columns(name, _header(name, first, record, opened), opened, "the header has")
            continue
        if rows == 0 and spec.columns is not None and tuple(record) == spec.columns:
            # The job lists the columns, and the file has the same header: skip it.
            continue
        yield columns.row(first, last, record)
        rows += 1
        if rows == limit:
            return


def _header(name: str, line: int, record: Record, opened: Opened) -> list[str]:
    names = [field or "" for field in record]
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name}:{line}: the header is {_not_in(opened)}") from error
    named = [field for field in names if field.strip()]
    twice = next((field for field in named if named.count(field) > 1), None)
    if twice is not None:
        raise InputError(
            f"{name}:{line}: two columns are called {twice!r}, where line {line} is taken for the header; rename one, "
            "or give the names of all columns with input.csv.columns if the file has no header"
        )
    return names


def _not_in(opened: Opened) -> str:
    if opened.encoding != "UTF-8":
        return f"not {opened.encoding}; set input.csv.encoding to what the file is in"
    return "not UTF-8; if the file is Windows-1252, as Excel often writes it, set input.csv.encoding: cp1252"


class _Columns:
    """The columns of a file; turns records into lines for the spool."""

    def __init__(self, name: str, names: Sequence[str], opened: Opened, source: str) -> None:
        self._name = name
        self._opened = opened
        self._source = source
        self._count = len(names)
        self._names = [field if field.strip() else f"column_{at}" for at, field in enumerate(names, 1)]
        self._unnamed = [at for at, field in enumerate(names) if not field.strip()]
        self._comment = self._count == 1 and names[0].startswith("#")

    def row(self, first: int, last: int, record: Record) -> bytes:
        """Return the record as a line for the spool."""
        if len(record) != self._count:
            if len(record) < self._count or any(record[self._count :]):
                return self._misfit(first, last, record)
            # Spreadsheets also write delimiters for empty cells to the right of the table.
            record = record[: self._count]
        values = dict(zip(self._names, record, strict=True))
        for at in self._unnamed:
            if not record[at]:
                del values[self._names[at]]
        try:
            return orjson.dumps([first, values], option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError:
            return _faulty(first, "invalid_encoding", _not_in(self._opened))

    def _misfit(self, first: int, last: int, record: Record) -> bytes:
        if self._comment:
            raise InputError(
                f"{self._name}:1: begins with #, and CSV has no comments, so that it is taken for the header; delete it"
            )
        where = "" if first == last else f" (the record is in lines {first} to {last})"
        return _faulty(first, "wrong_type", f"{len(record)} fields where {self._source} {self._count}{where}")


def _faulty(line: int, kind: InvalidKind, message: str) -> bytes:
    return orjson.dumps([line, None, kind, message], option=orjson.OPT_APPEND_NEWLINE)
