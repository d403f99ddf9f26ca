"""Refuses files whose content does not match their name, before any of their rows is read."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import orjson
import pyarrow as pa

from batch.errors import InputError
from batch.reading.formats.looks import HEAD_BYTES, Look, begins_array_over_lines, looks_like
from batch.reading.sources import Source, input_errors, open_stream

# What a sound file of a format may look like to `looks_like`.
_OWN_LOOKS = {
    "parquet": ("Parquet",),
    "csv": ("UTF-16 text", "UTF-32 text"),
    "arrow": ("an Arrow file", "an Arrow stream"),
}
# First bytes of compressed files.
_MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "bz2": b"BZh"}
_BINARY = {"parquet": "Parquet", "arrow": "Arrow"}


def check_kinds(sources: Iterable[Source]) -> None:
    """Raise InputError for a file whose first bytes contradict the format in its name."""
    for source in sources:
        with input_errors(source.location), open_stream(source.location, None) as stream:
            head = stream.read(HEAD_BYTES)
        if source.compression is None:
            _check(source, head)
        elif head:
            with decompression_errors(source), open_stream(source.location, source.compression) as stream:
                inner = stream.read(HEAD_BYTES)
            _check(source, inner)


@contextmanager
def decompression_errors(source: Source) -> Iterator[None]:
    """Turn a decompression error into an InputError that says what the file really is, if its first bytes show it.

    Other read errors become InputErrors as in `input_errors`.
    """
    with input_errors(source.location):
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if source.compression is None or isinstance(error, FileNotFoundError | PermissionError):
                raise
            with open_stream(source.location, None) as stream:
                head = stream.read(HEAD_BYTES)
            raise _not_unpacked(source, source.compression, head, error) from error


def _check(source: Source, head: bytes) -> None:
    look = looks_like(head)
    if look is not None and look.what in _OWN_LOOKS.get(source.format, ()):
        return
    if source.format == "csv" and look is None and _is_object(head.split(b"\n", 1)[0]):
        look = Look("JSON Lines, as it seems", "give its name the ending .jsonl", sure=True)
    elif source.format == "jsonl" and look is not None and begins_array_over_lines(head):
        look = look._replace(sure=True)
    if look is not None and look.sure:
        if source.compression is None:
            raise InputError(f"{source.name}: is {look}")
        then = look.remedy.removesuffix(" first")
        raise InputError(f"{source.name}: what is compressed in it is {look.what}; decompress it first, then {then}")
    if source.format in _BINARY:
        raise InputError(f"{source.name}: is no {_BINARY[source.format]} file: {_text_kind(head)}")


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line.removeprefix(b"\xef\xbb\xbf")), dict)
    except orjson.JSONDecodeError:
        return False


def _text_kind(head: bytes) -> str:
    """Describe a file that should be Parquet or Arrow but is not binary."""
    if not head:
        return "it is empty; write it again"
    if not head.strip(b"\0"):
        return "it begins with zeros; fetch or write it again"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return "it looks like JSON Lines; give its name the ending .jsonl"
    if text.startswith(b"["):
        return "it looks like a JSON array; give its name the ending .json"
    return "its first bytes are of another kind; give its name the ending of what it is, or write it again"


def _not_unpacked(source: Source, compression: str, head: bytes, error: Exception) -> InputError:
    ending = source.location[source.location.rfind(".") :]
    if head.startswith(_MAGIC[compression]):
        what = f"its {compression} data is damaged or cut off ({' '.join(str(error).split())}); fetch or write it again"
        return InputError(f"{source.name}: {what}")
    look = looks_like(head)
    if look is not None and look.sure:
        return InputError(f"{source.name}: its name says {compression}, and it is {look}")
    what = f"its name says {compression}, and it is not compressed with it; take {ending} off its name"
    return InputError(f"{source.name}: {what}, or fetch it again")
