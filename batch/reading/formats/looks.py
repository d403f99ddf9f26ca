"""Guesses by its first bytes what a file is, for files that are not what their name says."""

import re
from typing import NamedTuple

import orjson

HEAD_BYTES = 4096

# First bytes with which no text file begins, so they decide whatever the file's name is.
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "compressed with gzip", "give its name the ending .gz, as in rows.jsonl.gz"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "give its name the ending .zst, as in rows.jsonl.zst"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it first (xz -d)"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "decompress it first (lz4 -d)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV, first"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook", "save the sheet as CSV first"),
    (b"PAR1", "Parquet", "give its name the ending .parquet"),
    (b"ARROW1", "an Arrow file", "give its name the ending .arrow"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "give its name the ending .arrow"),
    (b"FEA1", "Feather of version 1", "save it again with a current pandas or PyArrow"),
    (b"Obj\x01", "Avro", "convert it to Parquet first"),
    (b"SQLite format 3\x00", "an SQLite database", "export the table as CSV first"),
    (b"%PDF-", "a PDF document", "extract its text first"),
    (b"\x93NUMPY", "a NumPy array", "save it as Parquet first"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (b"\x00\x00\xfe\xff", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)
# Formats whose magic bytes are letters with which a CSV header may begin too, so the pattern asks for more bytes.
_LETTERED: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"BZh[1-9]1AY&SY"), "compressed with bzip2", "give its name the ending .bz2, as in rows.jsonl.bz2"),
    (re.compile(rb"ORC[^ -~\r\n\t]"), "ORC", "convert it to Parquet first"),
    (re.compile(rb"\x80[\x02-\x05][^ -~]"), "a Python pickle", "save its rows as JSON Lines or Parquet first"),
)
_HTML = re.compile(rb"<(!doctype html|html|head|body)\b", re.IGNORECASE)
# Two or more short names with a usual delimiter between them, as in the header of a CSV file.
_NAME = rb'"?[^\W\d][\w .-]{0,60}"?'
_HEADER = re.compile(rb"%b(?:,%b)+|%b(?:\t%b)+|%b(?:;%b)+" % ((_NAME,) * 6))
_BOM = b"\xef\xbb\xbf"


class Look(NamedTuple):
    """What a file seems to be."""

    what: str
    """Completes "the file is ...", for example "a Git LFS pointer" or "UTF-16 text"."""

    remedy: str
    """What the user can do, as an imperative."""

    sure: bool
    """True if the first bytes prove it. Otherwise it is the likeliest explanation if no row of the file can be used."""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def looks_like(head: bytes) -> Look | None:
    """Guess what a file with these first bytes (4 KiB are enough) is; `None` if it may be JSON Lines or CSV.

    Use the guess if it is `sure`, or if no row of the file can be used. A JSON array is not `sure`: the first line of a
    JSON Lines file may look the same and be the only broken one.
    """
    for magic, what, remedy in _MAGIC:
        if head.startswith(magic):
            return Look(what, remedy, sure=True)
    if head[257:262] == b"ustar":
        return Look("a tar archive", "unpack it first", sure=True)
    for pattern, what, remedy in _LETTERED:
        if pattern.match(head):
            return Look(what, remedy, sure=True)
    text = head.removeprefix(_BOM).lstrip()
    if _HTML.match(text):
        return Look("an HTML page", "download the data itself; the server may want a login", sure=True)
    if text.startswith(b"<?xml"):
        return Look("XML", "convert it to JSON Lines or CSV first", sure=True)
    if _utf16_without_mark(head):
        return Look("UTF-16 text without a byte order mark", "save it as UTF-8", sure=False)
    if text.startswith(b"["):
        return _list(text)
    if text.startswith(b"{") and _is_cut(text.partition(b"\n")[0]):
        return Look("pretty-printed JSON, an object over several lines", "give its name the ending .json", sure=False)
    return None


def looks_like_table(head: bytes) -> bool:
    """Do the first bytes look like CSV (a line of column names, then more)? For files in which no line is JSON."""
    first, newline, rest = head.removeprefix(_BOM).partition(b"\n")
    return newline != b"" and rest.strip() != b"" and _HEADER.fullmatch(first.rstrip(b"\r")) is not None


def begins_array_over_lines(head: bytes) -> bool:
    """Does the file begin with a JSON list that continues on the next line, which JSON Lines never does?

    Such a file must not be read as JSON Lines: only its last row, which no comma follows, would be valid.
    """
    text = head.removeprefix(_BOM).lstrip()
    first, newline, _ = text.partition(b"\n")
    return text.startswith(b"[") and newline != b"" and _is_cut(first)


def is_json_lines(head: bytes) -> bool:
    """Do the first bytes of a .json file look like one JSON object per line? Many JSON Lines files are named .json."""
    text = head.removeprefix(_BOM).lstrip()
    return text.startswith(b"{") and not _is_cut(text.partition(b"\n")[0])


def _utf16_without_mark(head: bytes) -> bool:
    """Is nearly every second byte zero, as in UTF-16 of mostly ASCII text?"""
    pairs = len(head) // 2
    return pairs >= 2 and max(head[0::2].count(0), head[1::2].count(0)) > 0.7 * pairs


def _list(text: bytes) -> Look:
    first, newline, rest = text.partition(b"\n")
    if newline and rest.strip() and not _is_cut(first):
        return Look("lines of JSON lists", "make each line a JSON object", sure=False)
    return Look("one JSON array", "give its name the ending .json", sure=False)


def _is_cut(line: bytes) -> bool:
    """Is the line the beginning of a JSON value that continues on the next line?"""
    line = line.strip()
    if line in (b"{", b"["):
        return True
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return line.endswith((b",", b"{", b"["))
    return False
