"""Input that can be read only once (standard input, named pipes): copied, so that the same command can go on later."""

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
from batch.reading.sources import Format, Source, open_stream, reading
from batch.storage.atomic import replacing

STANDARD_INPUT = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
# What is piped into a command that goes on is compared with the copy if it comes this soon. The pipe of many schedulers
# has no writer that ever ends it.
_PATIENCE_SECONDS = 1.0
_CHUNK_BYTES = 1 << 20
_COMPRESSIONS = {"compressed with gzip": "gzip", "compressed with zstd": "zstd", "compressed with bzip2": "bz2"}
_BINARY: dict[str, Format] = {"Parquet": "parquet", "an Arrow file": "arrow", "an Arrow stream": "arrow"}


def copied(source: Source, spool: Path, *, stored: bool) -> Source:
    """The source as a file of the spool, in the format that its first bytes show.

    Args:
        source: one that `is_stream`.
        spool: folder of spooled files.
        stored: do the shards of an earlier sitting exist? Then what is piped in must be the same, or nothing.

    Raises:
        InputError: there is nothing to read and no copy, or it differs from what the run began with.
        StorageError: the copy cannot be written.
    """
    target = copy_of(source, spool)
    with reading(source.name), _opened(source.location, wait=not target.exists()) as stream:
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


def copy_of(source: Source, spool: Path) -> Path:
    """Where the copy of a stream is kept."""
    return spool / f"{blake2b(source.location.encode(), digest_size=16).hexdigest()}.stream"


@contextmanager
def _opened(location: str, *, wait: bool) -> Iterator[BinaryIO]:
    """The stream; `wait` for somebody who writes to a named pipe."""
    if location in STANDARD_INPUT:
        # By its number: a socket as standard input has no path that could be opened.
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
    """The source with the format and compression that its first bytes show; CSV where it is neither JSON nor binary."""
    with open_stream(source.location, None) as stream:
        head = stream.read(HEAD_BYTES)
    look = looks_like(head)
    compression = _COMPRESSIONS.get(look.what) if look is not None else None
    if compression is not None:
        with reading(source.name), open_stream(source.location, compression) as stream:
            head = stream.read(HEAD_BYTES)
    if look is not None and look.what in _BINARY and compression is None:
        return replace(source, format=_BINARY[look.what])
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return replace(source, format="json" if text[:1] in (b"{", b"[") else "csv", compression=compression)
