"""Reads files as a whole, row by row: labels, and the results of earlier runs."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from batch.errors import InputError
from batch.reading.column_checks import check_column
from batch.reading.invalid import InvalidRow
from batch.reading.records import Record, shard_records
from batch.reading.shards import cut_files
from batch.reading.sources import find_sources, input_errors, open_stream
from schemas.job import InputSpec

_CHUNK_BYTES = 1 << 20


class Row(NamedTuple):
    """One row of a labelled file."""

    where: str
    """`<file>:<line>`, for messages."""
    record: Record
    """Values by column name."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file that was read, identified so that a later reader can check that the file is still the same."""

    name: str
    """As `Source.name`, without folders of this machine."""
    sha256: str
    """Hash of the stored bytes."""
    size: int
    """Number of stored bytes."""


def read_rows(path: str | Sequence[str], key: str, columns: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Yield every row of a file, a glob, a folder or a list of these, in any format that a job's input may have.

    NaN and infinities are not replaced by null: in a label they are an error, whereas null means "no label".

    Args:
        key: key of the user's file that gave `path`, for messages.
        columns: columns that at least one row must have, as pairs (key that names it, column).

    Raises:
        InputError: a file cannot be read, no row has one of the columns, or a row is not a record.
    """
    spec = InputSpec(path=path if isinstance(path, str) else tuple(path))
    with tempfile.TemporaryDirectory(prefix="batchrouter-") as spool:
        shards = cut_files(spec, Path(spool), key=key)
        for asked, column in columns:
            check_column(asked, column, shards)
        for shard in shards:
            for line, record in shard_records(shard):
                where = f"{shard.name}:{line}"
                if isinstance(record, InvalidRow):
                    raise InputError(f"{key}: {where}: {record.message}")
                yield Row(where, record)


def read_files(path: str | Sequence[str], key: str) -> list[ReadFile]:
    """Return the files that `path` names, in reading order, with their hashes. Raises as `read_rows` does."""
    found = []
    for source in find_sources(InputSpec(path=path if isinstance(path, str) else tuple(path)), key):
        hashed = sha256()
        with input_errors(source.name, key), open_stream(source.location, None) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                hashed.update(chunk)
        found.append(ReadFile(source.name, hashed.hexdigest(), source.size))
    return found
