"""Byte ranges of line files: where their lines begin and how many rows they hold."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from batch.reading.sources import input_errors, open_file

BOM = b"\xef\xbb\xbf"
CHUNK_BYTES = 1 << 20
SEEK_BYTES = 1 << 16
NEWLINE, SPACE = 10, 32


@dataclass(frozen=True, slots=True)
class TextRange:
    """A byte range of a file, cut at any byte. The lines that start within it belong to it."""

    location: str
    """Absolute local path, or URI."""

    start: int
    """First byte."""

    stop: int
    """Byte after the last."""


@dataclass(frozen=True, slots=True)
class CountedRange:
    """The lines of a TextRange."""

    start: int
    """Byte at which the first line starts, after a byte order mark."""

    stop: int
    """Byte after the last line."""

    lines: int
    """Number of lines, blank ones included."""

    rows: int
    """Number of lines that are not blank."""

    crc: int = 0
    """CRC-32 of the bytes from `start` to `stop`."""


def cut(location: str, size: int, target: int) -> Iterator[TextRange]:
    """Yield ranges of about `target` bytes that cover the file."""
    for start in range(0, size, target):
        yield TextRange(location, start, min(start + target, size))


def count_range(part: TextRange) -> CountedRange:
    """Count the lines that start in `part`, in constant memory.

    Ranges may be counted in any order and in different processes: together they contain every line exactly once.
    """
    with input_errors(part.location), open_file(part.location) as file:
        start = _first_line_start(file, part.start, part.stop)
        if start >= part.stop:
            return CountedRange(part.stop, part.stop, 0, 0)
        stop = _first_line_start(file, part.stop, file.size())
        if start == 0 and file.read_at(len(BOM), 0) == BOM:
            start = len(BOM)
        return _count(file, start, stop)


def _first_line_start(file: Any, offset: int, end: int) -> int:
    """The first byte at or after `offset` that starts a line; `end` if no line starts before `end`."""
    if offset == 0:
        return 0
    at = offset - 1
    while at < end:
        chunk = file.read_at(min(SEEK_BYTES, end - at), at)
        found = chunk.find(b"\n")
        if found >= 0:
            return int(at + found + 1)
        if not chunk:
            break
        at += len(chunk)
    return end


def _count(file: Any, start: int, stop: int) -> CountedRange:
    """Count the lines between two line starts. The last line of a file may lack its line end."""
    tally = LineTally()
    file.seek(start)
    left = stop - start
    crc = 0
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        tally.add(chunk)
        crc = crc32(chunk, crc)
    return CountedRange(start, stop, tally.lines + tally.unfinished, tally.rows + tally.unfinished_row, crc)


class LineTally:
    """Counts lines and rows in a stream of chunks, which may be cut at any byte."""

    def __init__(self) -> None:
        self.lines = 0
        """Complete lines so far."""
        self.rows = 0
        """Complete lines that are not blank."""
        self.unfinished = False
        """True if the last chunk ended within a line."""
        self.unfinished_row = False
        """True if that incomplete line is not blank so far."""

    def add(self, chunk: bytes) -> None:
        """Count the lines that end in `chunk`, which must not be empty."""
        array = np.frombuffer(chunk, np.uint8)
        ends = np.flatnonzero(array == NEWLINE)
        if not len(ends):
            self.unfinished = True
            self.unfinished_row = self.unfinished_row or bool(chunk.strip())
            return
        first, last = int(ends[0]), int(ends[-1])
        self.lines += len(ends)
        self.rows += self.unfinished_row or bool(chunk[:first].strip())
        starts = ends[:-1] + 1
        # Few lines start with whitespace, so the first byte decides for nearly all lines.
        doubtful = np.flatnonzero(array[starts] <= SPACE)
        blank = sum(not chunk[starts[i] : ends[i + 1]].strip() for i in doubtful)
        self.rows += len(starts) - blank
        tail = chunk[last + 1 :]
        self.unfinished = bool(tail)
        self.unfinished_row = bool(tail.strip())
