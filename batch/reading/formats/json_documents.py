"""Converts a JSON array, or JSON objects that span lines, into one line per row, which can be cut into shards."""

import codecs
import json
from collections.abc import Iterable, Iterator

import orjson

from batch.errors import InputError
from batch.reading.invalid import type_name

# Most characters of one row. A longer value is most likely the whole file in one object, which cannot be cut into rows.
MAX_ROW_CHARACTERS = 64 << 20
# If the text read so far ends within a value, the parser reports an error within this many characters of the end,
# except in a string.
_NEAR_THE_END = 64
_WHITESPACE = " \t\r\n"


def json_rows(name: str, chunks: Iterable[bytes], limit: int | None) -> Iterator[bytes]:
    """Yield `[line, record]`, or `[line, null, kind, message]`, for each value of the file, with all digits.

    Made-up ids use the line number, so no two rows may have the same: several rows on one line are numbered upwards
    from that line, so the rows of an array on one line are numbered from 1.

    Memory holds one row and the chunk it was read with.

    Args:
        name: the file's name, for messages.
        chunks: its decompressed bytes.
        limit: number of rows after which reading may stop.

    Raises:
        InputError: the file is not JSON. After a broken value, the start of the next one is unknown.
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
            # In JSON, raw line ends occur only between tokens: within strings they are escaped.
            yield b"[%d,%b]\n" % (line, raw.replace("\n", " ").replace("\r", " ").encode())
        else:
            message = f"a row must be a JSON object, not {type_name(value)}"
            yield orjson.dumps([line, None, "wrong_type", message], option=orjson.OPT_APPEND_NEWLINE)
        rows += 1
        if rows == limit:
            return


def _has_more(text: "_Text", *, in_array: bool, first: bool) -> bool:
    """Move to the next value; return whether there is one."""
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
    """A cursor in the text of a file, of which a part is in memory."""

    def __init__(self, name: str, chunks: Iterable[bytes]) -> None:
        self._name = name
        self._chunks = iter(chunks)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        # The parsed numbers are not used, and Python refuses to convert more than 4,300 digits into an int.
        self._json = json.JSONDecoder(parse_int=float)
        self._text = ""
        self._at = 0
        self._ended = False
        self.line = 1
        """Line of the cursor, from 1."""

    def peek(self) -> str:
        """Move to the next character that is not whitespace and return it; empty text at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _WHITESPACE:
                self.line += self._text[self._at] == "\n"
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_more():
                return ""

    def skip(self, characters: int) -> None:
        """Move forward over characters, none of which is a line end."""
        self._at += characters

    def value(self) -> tuple[object, str]:
        """Return the next value and its text, and move behind it. Raises InputError."""
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
                # A number may continue in the part that is not read yet.
                if end < len(self._text) or not self._read_more():
                    raw = self._text[self._at : end]
                    self.line += raw.count("\n")
                    self._at = end
                    return value, raw

    def fault(self, what: str) -> InputError:
        """Return an error that names the current line."""
        return InputError(f"{self._name}:{self.line}: {what}")

    def _read_more(self) -> bool:
        """Read at least as many characters as the value has so far, so that a long value is parsed only a few times."""
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
