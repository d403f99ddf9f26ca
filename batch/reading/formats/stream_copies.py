"""Copies input that can be read only once (standard input, named pipes), so that an interrupted run can resume."""

import os
import select
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from batch.errors import InputError
from batch.reading.formats.looks import HEAD_BYTES, looks_like
from batch.reading.sources import Format, Source, input_errors, open_stream
from batch.storage.atomic import replacing

STANDARD_INPUT = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
# A resumed command compares its piped input with the copy if the input arrives this soon. It must not wait longer:
# under many schedulers, standard input is a pipe that no process ever writes to or closes.
_PATIENCE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 20
_COMPRESSIONS = {"compressed with gzip": "gzip", "compressed with zstd": "zstd", "compressed with bzip2": "bz2"}
_BINARY: dict[str, Format] = {"Parquet": "parquet", "an Arrow file": "arrow", "an Arrow stream": "arrow"}


def copy_stream(source: Source, spool: Path, *, stored: bool) -> Source:
    """Copy the stream into the spool and return it as a source, with the format that its first bytes show.

    Args:
        source: a source that `is_stream`.
        spool: folder of spooled files.
        stored: shards of an earlier sitting exist, so the piped data must be the same as then, or empty.

    Raises:
        InputError: there is neither data to read nor a copy, or the data differ from what the run began with.
        StorageError: the copy cannot be written.
    """
    target = copy_path(source, spool)
    with input_errors(source.name), _opened(source.location, wait=not target.exists()) as stream:
        if target.exists():
            if _has_data(stream):
                _compare_or_replace(stream, target, source, stored=stored)
        elif stream.isatty():
            raise InputError(f"{source.location}: is a terminal; pipe the rows in, or name a file in input.path")
        else:
            _copy(stream, target)
    if not target.stat().st_size:
        target.unlink()
        raise InputError(f"{source.location}: nothing was piped in; name a file in input.path, or pipe the rows again")
    copy = target.stat()
    return _recognized(
        replace(
            source, location=str(target.absolute()), size=copy.st_size, mtime_ns=copy.st_mtime_ns, spooled=target.name
        )
    )


def copy_path(source: Source, spool: Path) -> Path:
    """The path of a stream's copy."""
    return spool / f"{blake2b(source.location.encode(), digest_size=16).hexdigest()}.stream"


@contextmanager
def _opened(location: str, *, wait: bool) -> Iterator[BinaryIO]:
    """Open the stream. With `wait`, opening a named pipe blocks until a process writes to it."""
    if location in STANDARD_INPUT:
        # By file descriptor: if standard input is a socket, it has no path that could be opened.
        descriptor = os.dup(0)
    else:
        descriptor = os.open(location, os.O_RDONLY | (0 if wait else os.O_NONBLOCK))
        os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        yield stream


def _has_data(stream: BinaryIO) -> bool:
    if stream.isatty():
        return False
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return True
    return bool(select.select([stream], [], [], _PATIENCE_SECONDS)[0])


def _copy(stream: BinaryIO, target: Path) -> None:
    with replacing(target) as temp, temp.open("wb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            file.write(chunk)


def _compare_or_replace(stream: BinaryIO, target: Path, source: Source, *, stored: bool) -> None:
    again = target.with_suffix(".again")
    _copy(stream, again)
    try:
        same = again.stat().st_size == target.stat().st_size and _equal(again, target)
        if again.stat().st_size and not same:
            if stored:
                raise InputError(
                    f"{source.location}: what is piped in differs from what this run began with; pipe the same, or "
                    "nothing, or start again with --fresh"
                )
            again.replace(target)
    finally:
        again.unlink(missing_ok=True)


def _equal(one: Path, other: Path) -> bool:
    with one.open("rb") as left, other.open("rb") as right:
        while chunk := left.read(_CHUNK_BYTES):
            if chunk != right.read(_CHUNK_BYTES):
                return False
    return True


def _recognized(source: Source) -> Source:
    """Set format and compression by the first bytes; CSV if they are neither JSON nor binary."""
    with open_stream(source.location, None) as stream:
        head = stream.read(HEAD_BYTES)
    look = looks_like(head)
    compression = _COMPRESSIONS.get(look.what) if look is not None else None
    if compression is not None:
        with input_errors(source.name), open_stream(source.location, compression) as stream:
            head = stream.read(HEAD_BYTES)
    if look is not None and look.what in _BINARY and compression is None:
        return replace(source, format=_BINARY[look.what])
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return replace(source, format="json" if text[:1] in (b"{", b"[") else "csv", compression=compression)
