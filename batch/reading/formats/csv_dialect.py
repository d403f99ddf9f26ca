"""Finds out a CSV file's dialect: its encoding, its delimiter, and lines before its records."""

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from batch.errors import InputError
from batch.reading.formats.looks import looks_like
from batch.reading.ranges import CHUNK_BYTES
from schemas.job import CsvSpec

# Longer byte order marks first: UTF-32's begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITER_NAMES = {";": "semicolon", "\t": "tab", "|": "bar"}
# The line with which Excel states the delimiter, before the header.
_SEP = re.compile(r"sep=(.)\r?\n?")


@dataclass(frozen=True, slots=True)
class Opened:
    """A CSV file, opened as text."""

    lines: Iterator[str]
    """Its lines, with line ends. Undecodable bytes become lone surrogates, so that only their row is invalid."""

    delimiter: str
    """The character between fields."""

    skipped: int
    """Number of lines before `lines`."""

    encoding: str
    """The encoding, by the name that users write."""


def open_csv(name: str, chunks: Iterable[bytes], spec: CsvSpec, *, tabs: bool) -> Opened:
    """Find out the file's dialect and open it. Raises InputError if the dialect is not clear.

    Args:
        name: the file's name, for messages.
        chunks: its decompressed bytes.
        tabs: whether its name says that tabs separate the fields (.tsv).
    """
    chunks = iter(chunks)
    head = next(chunks, b"")
    encoding = spec.encoding or _encoding(name, head)
    lines = _text_lines(chain((head,), chunks), encoding)
    try:
        first, skipped = next(lines, "").removeprefix("\ufeff"), 0
        separator = _SEP.fullmatch(first) if spec.columns is None else None
        if separator is not None:
            first, skipped = next(lines, ""), 1
    except UnicodeError as error:
        # Single bad bytes become surrogates; this error means UTF-16 or UTF-32 without a byte order mark.
        raise InputError(f"{name}: is not {encoding}; set input.csv.encoding to what the file is in") from error
    delimiter = spec.delimiter or (separator[1] if separator is not None else None)
    if delimiter is None:
        delimiter = "\t" if tabs else _delimiter(name, first, spec)
    shown = "UTF-8" if encoding == "utf-8-sig" else encoding
    return Opened(chain((first,), lines) if first else iter(()), delimiter, skipped, shown)


def _encoding(name: str, head: bytes) -> str:
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    look = looks_like(head[:4096])
    if look is not None and look.what.startswith("UTF-16"):
        order = "utf-16-le" if head[1:2] == b"\0" else "utf-16-be"
        raise InputError(f"{name}: is {look.what}; set input.csv.encoding: {order}, or save it as UTF-8")
    return "utf-8-sig"


def _delimiter(name: str, first: str, spec: CsvSpec) -> str:
    """Infer the delimiter from the first line. Raises InputError if several are possible."""
    quote = re.escape(spec.quote or "")
    bare = re.sub(f"{quote}[^{quote}]*{quote}", "", first) if quote else first
    counts = {mark: bare.count(mark) for mark in (",", *_DELIMITER_NAMES)}
    if spec.columns is not None:
        # The first line is data and may contain any of these characters, so the number of columns decides.
        fitting = [mark for mark, count in counts.items() if count == len(spec.columns) - 1]
        return fitting[0] if len(spec.columns) > 1 and fitting else ","
    commas = counts.pop(",")
    others = [mark for mark, count in counts.items() if count]
    if not commas and len(others) == 1:
        return others[0]
    if commas >= max(counts[";"], counts["\t"]) and (commas or not others):
        return ","
    found = " and ".join(f"{count} x {_DELIMITER_NAMES[mark]}" for mark, count in counts.items() if count)
    raise InputError(
        f"{name}:1: the header has {commas} x comma and {found}; "
        "say what separates its columns with input.csv.delimiter"
    )


def _text_lines(chunks: Iterable[bytes], encoding: str) -> Iterator[str]:
    return io.TextIOWrapper(
        io.BufferedReader(_Readable(chunks), CHUNK_BYTES), encoding=encoding, errors="surrogateescape", newline=""
    )


class _Readable(io.RawIOBase):
    """A raw binary stream over chunks of bytes."""

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
