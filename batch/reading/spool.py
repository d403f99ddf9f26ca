"""Compressed and CSV files, streamed once into line files that can be cut into shards.

A spooled JSONL file is the original, decompressed. A spooled CSV file has one JSON list a line:
`[line, record]`, or `[line, null, kind, message]` for a record that is no row.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import orjson

from batch.errors import DamagedError, InputError
from batch.reading.invalid import InvalidKind
from batch.reading.ranges import CHUNK_BYTES, LineTally
from batch.reading.sources import Source, open_stream, reading
from batch.runs.atomic import replacing
from batch.storage.checksums import CheckedWriter, Checksum, matches
from batch.storage.sealed import read_sealed, write_sealed

# A quote that is never closed would otherwise take the rest of the file into one field.
MAX_FIELD_CHARACTERS = 64 << 20


@dataclass(frozen=True, slots=True)
class Spooling:
    """One file to spool."""

    source: Source
    """What is read."""

    spool: Path
    """Folder that the spooled file goes to."""

    limit: int | None
    """Rows after which reading may stop."""

    name: str | None = None
    """What the spooled file is to be called; left out: by a hash of what is in it."""


def spool_file(task: Spooling) -> Path:
    """Stream the source into the spool, in constant memory, and return the spooled file.

    A file spooled before is used again, unless its source has changed or it is damaged. Raises InputError when the
    source cannot be read and StorageError when the spool cannot be written.
    """
    source = task.source
    # The name, which is the same after the input has moved, and which no other source has.
    identity = f"{source.name}\0{source.size}\0{source.mtime_ns}\0{task.limit}".encode()
    # The hash alone: a file's name may be as long as names may be, with nothing left for an ending.
    target = task.spool / (task.name or f"{blake2b(identity, digest_size=16).hexdigest()}.jsonl")
    if _is_whole(target):
        return target
    stream = _csv_lines if source.format == "csv" else _decompressed
    pieces = stream(source, task.limit)
    with replacing(target) as temp, CheckedWriter(temp) as file:
        file.writelines(pieces)
    write_sealed(_record(target), target.name, orjson.dumps({"size": file.checksum.size, "content": file.checksum.crc}))
    return target


def _record(spooled: Path) -> Path:
    """Where the checksum of a spooled file is kept."""
    return spooled.with_suffix(".json")


def _is_whole(spooled: Path) -> bool:
    """Is the file there, as it was spooled? All of it is read, since no shards are known that could be checked."""
    try:
        stored = read_sealed(_record(spooled), spooled.name)
        if stored is None:
            return False
        record = orjson.loads(stored)
        return matches(spooled, Checksum(record["size"], record["content"]))
    except (DamagedError, ValueError, KeyError, TypeError):
        return False


def _chunks(source: Source) -> Iterator[bytes]:
    """Decompressed bytes of a file."""
    with reading(source.location), open_stream(source.location, source.compression) as stream:
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


def _csv_lines(source: Source, limit: int | None) -> Iterator[bytes]:
    """Records as JSON lines; all values are strings."""
    records = _csv_records(_text_lines(_chunks(source)))
    header: list[str] | None = None
    rows = 0
    for line, record in records:
        if header is None:
            header = _header(source, record)
            continue
        yield _encoded(line, record, header)
        rows += 1
        if rows == limit:
            return


def _csv_records(lines: Iterable[str]) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Records that are not blank, each with the line it starts on."""
    reader = csv.reader(lines, strict=True)
    while True:
        line = reader.line_num + 1
        # The limit belongs to the module, so it is put back before anyone else runs.
        before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
        try:
            record: list[str] | csv.Error = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            record = error
        finally:
            csv.field_size_limit(before)
        if record:
            yield line, record


def _text_lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Lines with their ends; bytes that are not UTF-8 become lone surrogates, which only their row suffers from."""
    return io.TextIOWrapper(
        io.BufferedReader(_Readable(chunks), CHUNK_BYTES),
        encoding="utf-8-sig",
        errors="surrogateescape",
        newline="",
    )


class _Readable(io.RawIOBase):
    """A raw stream over chunks of bytes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed names a private buffer type
        self._rest = self._rest or memoryview(next(self._chunks, b""))
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _header(source: Source, record: list[str] | csv.Error) -> list[str]:
    if isinstance(record, csv.Error):
        raise InputError(f"{source.location}:1: the header is not CSV: {record}")
    twice = next((name for name in record if record.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{source.location}:1: two columns are called {twice!r}; rename one")
    return record


def _encoded(line: int, record: list[str] | csv.Error, header: list[str]) -> bytes:
    if isinstance(record, csv.Error):
        return _faulty(line, "wrong_type", f"not CSV: {record}")
    if len(record) != len(header):
        return _faulty(line, "wrong_type", f"{len(record)} fields where the header has {len(header)}")
    try:
        return orjson.dumps([line, dict(zip(header, record, strict=True))], option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        return _faulty(line, "invalid_encoding", "not UTF-8")


def _faulty(line: int, kind: InvalidKind, message: str) -> bytes:
    return orjson.dumps([line, None, kind, message], option=orjson.OPT_APPEND_NEWLINE)
