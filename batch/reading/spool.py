"""Spools compressed and CSV files: streams each once into a file of lines, which can be cut into shards.

A spooled JSONL file is the decompressed original. Spooled CSV files and JSON arrays hold one JSON list per line:
`[line, record]`, or `[line, null, kind, message]` for a record that cannot be a row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson

from batch.errors import DamagedError
from batch.reading.formats.csv_rows import csv_rows
from batch.reading.formats.format_checks import decompression_errors
from batch.reading.formats.json_documents import json_rows
from batch.reading.ranges import CHUNK_BYTES, LineTally
from batch.reading.sources import Source, has_tabs, open_stream
from batch.storage.atomic import replacing
from batch.storage.checksums import CheckedWriter, Checksum, matches
from batch.storage.sealed import read_sealed, write_sealed
from schemas.job import CsvSpec


@dataclass(frozen=True, slots=True)
class Spooling:
    """One file to spool."""

    source: Source
    """The file to read."""

    spool: Path
    """Folder for the spooled file."""

    limit: int | None
    """Number of rows after which reading may stop."""

    csv: CsvSpec
    """The job's options for CSV files."""

    name: str | None = None
    """Name of the spooled file; if left out, a hash of the source's name, size and time, and of the options."""


def spool_file(task: Spooling) -> Path:
    """Stream the source into the spool, in constant memory, and return the spooled file.

    A file that was spooled before is used again, unless its source has changed or the spooled file is damaged.

    Raises:
        InputError: the source cannot be read.
        StorageError: the spool cannot be written.
    """
    source = task.source
    # The source's name, which is unique and stays the same after the input has moved.
    how = repr(task.csv) if source.format == "csv" else ""
    identity = f"{source.name}\0{source.size}\0{source.mtime_ns}\0{task.limit}\0{how}".encode()
    # Only the hash: a source's name may be as long as file systems allow, without room for a suffix.
    target = task.spool / (task.name or f"{blake2b(identity, digest_size=16).hexdigest()}.jsonl")
    if _is_whole(target):
        return target
    pieces = _pieces(task)
    with replacing(target) as temp, CheckedWriter(temp) as file:
        file.writelines(pieces)
    write_sealed(_record(target), target.name, orjson.dumps({"size": file.checksum.size, "content": file.checksum.crc}))
    return target


def _pieces(task: Spooling) -> Iterator[bytes]:
    """The content of the spooled file, in pieces."""
    source = task.source
    if source.format == "csv":
        return csv_rows(source.name, _chunks(source), task.csv, task.limit, tabs=has_tabs(source.name))
    if source.format == "json":
        return json_rows(source.name, _chunks(source), task.limit)
    return _decompressed(source, task.limit)


def _record(spooled: Path) -> Path:
    """The file that holds the checksum of a spooled file."""
    return spooled.with_suffix(".json")


def _is_whole(spooled: Path) -> bool:
    """Does the file exist, unchanged since it was spooled? Reads all of it: no shards with checksums are known yet."""
    try:
        stored = read_sealed(_record(spooled), spooled.name)
        if stored is None:
            return False
        record = orjson.loads(stored)
        return matches(spooled, Checksum(record["size"], record["content"]))
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _chunks(source: Source) -> Iterator[bytes]:
    """Yield the decompressed bytes of a file."""
    with decompression_errors(source), open_stream(source.location, source.compression) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _decompressed(source: Source, limit: int | None) -> Iterator[bytes]:
    tally = LineTally()
    for chunk in _chunks(source):
        yield chunk
        if limit is not None:
            tally.add(chunk)
            if tally.rows >= limit:
                return
