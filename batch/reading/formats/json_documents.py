"""Files that are one JSON array, or JSON objects over several lines -> rows, as lines that can be cut into shards."""

import codecs
import json
from collections.abc import Iterable, Iterator

import orjson

from batch.errors import InputError
from batch.reading.invalid import type_name

# One row. What is longer is most likely the whole file in one object, which cannot be cut into rows.
MAX_ROW_CHARACTERS = 64 << 20
# A value that is cut off by the end of what was read so far has its fault this near to it, unless it is a string.
_NEAR_THE_END = 64
_WHITESPACE = " \t\r\n"


def json_rows(name: str, chunks: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """Yield `[line, record]`, or `[line, null, kind, message]`, for each value of the file, digits as they are.

    Ids are made up of the line, so no two rows have the same: rows that share a line with others count on from it, and
    the rows of an array on one line are numbered from 1.

    Memory holds one row and what was read with it. Raises InputError for what is no JSON: where a value is broken,
    nobody can say where the next one begins.

    Args:
        name: what messages call the file.
        chunks: its bytes, decompressed.
        limit: rows after which reading may stop.
    """
    text = _Text(name, chunks)
    in_array = text.peek() == "["
    if in_array:
        text.skip(1)
    elif text.peek() not in ("{", ""):
        raise text.fault("neither a JSON array nor JSON objects")
    rows = line = 0
    while _has_more(text, in_array=in_array, first=rows == 0):
        text.peek()  # moves to where the value starts
        line = max(text.line, line + 1)
        value, raw = text.value()
        if isinstance(value, dict):
            # Line ends within a value are only between its parts: in strings, JSON has escapes for them.
            yield b"[%d,%b]\n" % (line, raw.replace("\n", " ").replace("\r", " ").encode())
        else:
            message = f"a row must be a JSON object, not {type_name(value)}"
            yield orjson.dumps([line, None, "wrong_type", message], option=orjson.OPT_APPEND_NEWLINE)
        rows += 1
        if rows == limit:
            return


def _has_more(text: "_Text", *, in_array: bool, first: bool) -> bool:
    """Go on to the next value, if there is one."""
    if not in_array:
        return text.peek() != ""
    if text.peek() == "]":
        text.skip(1)
        if text.peek() != "":
            raise text.fault("there is more after the end of the array")
        return False
    if text.peek() == "":
        raise text.fault("the file ends within its array; it may be cut off")
    if not first:
        if text.peek() != ",":
            raise text.fault("a comma or the end of the array should follow the value")
        text.skip(1)
        if text.peek() == "]":
            raise text.fault("a comma stands before the end of the array; delete it")
    return True


class _Text:
    """The text of a file, a stretch of it in memory, and a place in it."""

    def __init__(self, name: str, chunks: Iterable[bytes]) -> None:
        self._name = name
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        # Only the texts of values are kept. Python refuses to make an int of more than 4,300 digits.
        self._json = json.JSONDecoder(parse_int=float)
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1
        """Line of the place."""

    def peek(self) -> str:
        """The next character that is no whitespace, to which the place moves; nothing at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITESPACE:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, characters: int) -> None:
        """Move on, over characters that are no line ends."""
        self._at += characters

    def value(self) -> tuple[object, str]:
        """The value that starts at or after the place, which moves behind it, and its text. Raises InputError."""
        if self.peek() == "":
            raise self.fault("a value is missing")
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                cut = error.pos > len(self._text) - _NEAR_THE_END or self._text[error.pos] == '"'
                if not (cut and self._read_more()):
                    self.line += self._text.count("\n", self._at, error.pos)
                    raise self.fault(f"not JSON: {error.msg}") from error
            except RecursionError as error:
                raise self.fault("nested too deeply") from error
            else:
                # A number may go on in what is not read yet.
                if end < len(self._text) or not self._read_more():
                    raw = self._text[self._at : end]
                    self.line += raw.count("\n")
                    self._at = end
                    return value, raw

    def fault(self, what: str) -> InputError:
        """An error at this line."""
        return InputError(f"{self._name}:{self.line}: {what}")

    def _read_more(self) -> bool:
        """Read at least as much again as the value has already, so that a long one is not parsed too often."""
        kept = self._text[self._at :]
        if len(kept) > MAX_ROW_CHARACTERS:
            raise self.fault(
                f"a value is longer than {MAX_ROW_CHARACTERS:,} characters; "
                "write the rows as one JSON array, or one object a line"
            )
        pieces, size = [kept], 0
        while size <= len(kept) and not self._ended:
            chunk = next(self._chunks, b"")
            self._ended = not chunk
            try:
                piece = self._decoder.decode(chunk, final=self._ended)
            except UnicodeDecodeError as error:
                raise self.fault("not UTF-8, here or in the lines that follow; save the file as UTF-8") from error
            pieces.append(piece)
            size += len(piece)
        self._text, self._at = "".join(pieces), 0
        return size > 0
