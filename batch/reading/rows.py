"""Rows of files that are read whole: labels, and the results of earlier runs."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from batch.errors import InputError
from batch.reading.invalid import InvalidRow
from batch.reading.present import check_column
from batch.reading.records import Record, shard_records
from batch.reading.shards import cut_files
from batch.reading.sources import find_sources, open_stream, reading
from schemas.job import InputSpec

_CHUNK_BYTES = 1 << 20


class Row(NamedTuple):
    """One row."""

    where: str
    """`<file>:<line>`, for messages."""
    record: Record
    """Values by column."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """What was read, so that somebody can tell later whether it is the same."""

    name: str
    """As `Source.name`: no folder of this machine."""
    sha256: str
    """Of its bytes, as stored."""
    size: int
    """Bytes, as stored."""


def read_rows(path: str | Sequence[str], key: str, columns: Iterable[tuple[str, str]]) -> Iterator[Row]:
    """Yield every row of a file, glob, folder or list of them: JSONL, Parquet or CSV, as a job's input.

    A number that is not finite stays what it is: among labels it is a fault, where null is none.

    Args:
        key: what the user calls `path`, for messages.
        columns: columns that some row must have, each after the key that asks for it.

    Raises:
        InputError: a file cannot be read, a column is nowhere, or a row is no record.
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
    """The files that `path` names, in reading order, with their hashes. Raises InputError as `read_rows` does."""
    found = []
    for source in find_sources(InputSpec(path=path if isinstance(path, str) else tuple(path)), key):
        hashed = sha256()
        with reading(source.name, key), open_stream(source.location, None) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                hashed.update(chunk)
        found.append(ReadFile(source.name, hashed.hexdigest(), source.size))
    return found
