"""JSON whose numbers keep their digits.

orjson is fast, but it reads a whole number beyond 64 bits as a float and writes NaN as null. Such numbers are rare, so
this module tries orjson first. It holds them as `ExactInt`, `Digits` or bytes, types that orjson refuses to write
under `OPT_PASSTHROUGH_SUBCLASS`; after such a refusal, this module writes the value itself. Rows without such values
pay nothing for it.
"""

import json
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from math import isfinite, isinf
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from batch.reading.digits import Digits
from batch.reading.invalid import InvalidRow

# JSON of carried columns begins with these bytes if orjson would read it wrongly. orjson itself never writes them.
EXACT_START = b"{ "

_MOST_INT_DIGITS = 4300  # Python refuses to convert longer text into an int: that would take long
_MAX_INT64, _MIN_INT64, _MAX_UINT64 = 2**63 - 1, -(2**63), 2**64 - 1

# A float holds at most 17 digits, and 64 bits hold any whole number of 18 digits. Decimals of 16 or 17 digits are left
# to orjson: programs write floats with as many digits, so such decimals are common, and the nearest float is meant.
_MOST_FLOAT_DIGITS = 17
_MOST_INT64_DIGITS, _MOST_UINT64_DIGITS = 18, 19
# A longer number has a run of 19 digits and points, so at least two multiples of this stride lie within the run.
_STRIDE = 9
# Longer than the longest float that Python writes, 0.00012345678901234567.
_LONG = 24
# Bytes examined at once: so many fit into a core's own cache.
_PIECE = 1 << 17
_POINT, _MINUS, _ZERO, _NINE = (ord(character) for character in ".-09")


class ExactRecord(dict[str, Any]):
    """A row that has NaN or an infinity among its values."""


class ExactInt(int):
    """A whole number beyond 64 bits."""


def loads(raw: bytes | str) -> Any:
    """Parse JSON that may contain NaN, Infinity and numbers of any length.

    Raises:
        ValueError: the text is not JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(raw, parse_int=_int, parse_float=_float, parse_constant=Digits.of)


def _int(text: str) -> int | float:
    if len(text) > _MOST_INT_DIGITS:
        return Digits.of(text)
    return exact_int(int(text))


def exact_int(value: int) -> int:
    """Return the number, as an ExactInt if it needs more than 64 bits."""
    return value if _MIN_INT64 <= value <= _MAX_UINT64 else ExactInt(value)


def _float(text: str) -> float:
    value = float(text)
    if isinf(value):
        return Digits.of(text)
    try:
        return value if Decimal(repr(value)) == Decimal(text) else Digits.of(text)
    except InvalidOperation:
        # Its exponent has 19 digits or more, which Decimal does not accept.
        return Digits.of(text)


def long_number_lines(data: bytes) -> frozenset[int]:
    """Return the offsets of lines that may hold numbers which orjson would change.

    A line with something that merely looks like such a number, such as an IP address or a hash in a string, is also
    returned; it is parsed more slowly, with the same result.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    found = set()
    for start in range(0, len(bytes_), _PIECE):
        # A run belongs to the piece in which it starts; the byte before the piece shows whether it starts there.
        first = max(start - 1, 0)
        piece = bytes_[first : start + _PIECE + _LONG]
        if _may_have_runs(piece):
            for at in (first + _long_runs(piece)).tolist():
                found.add(data.rfind(b"\n", 0, at) + 1)
    return frozenset(found)


def _may_have_runs(piece: NDArray[np.uint8]) -> bool:
    """Could the piece hold a long run? Looks at two of every nine bytes: a long run covers three adjacent samples."""
    sampled = _numeric(piece[::_STRIDE])
    between = _numeric(piece[_STRIDE // 2 :: _STRIDE])
    return bool((sampled[:-1] & sampled[1:] & between[: len(sampled) - 1]).any())


def _numeric(bytes_: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which bytes are digits or points (or `/`, which lies between them in ASCII)."""
    numeric: NDArray[np.bool_] = bytes_ - _POINT <= _NINE - _POINT
    return numeric


def _long_runs(piece: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the starts of runs of digits and points that may fit neither a float nor 64 bits."""
    one = _numeric(piece)
    two = one[:-1] & one[1:]
    four = two[:-2] & two[2:]
    eight = four[:-4] & four[4:]
    sixteen = eight[:-8] & eight[8:]
    nineteen = sixteen[:-3] & sixteen[3:]
    starts: NDArray[np.int64] = np.flatnonzero(nineteen)
    starts = starts[(starts == 0) | ~one[starts - 1]]
    if not len(starts):
        return starts
    places = starts[:, None] + np.arange(_LONG)
    run = piece[np.minimum(places, len(piece) - 1)]
    inside = np.logical_and.accumulate(_numeric(run) & (places < len(piece)), axis=1)
    run[~inside] = _ZERO
    length = inside.sum(axis=1)
    pointed = (run == _POINT).any(axis=1)
    idle = np.logical_and.accumulate((run == _ZERO) | (run == _POINT), axis=1).sum(axis=1)
    digits = length - np.maximum(idle, pointed)
    negative = (starts > 0) & (piece[np.maximum(starts, 1) - 1] == _MINUS)
    most = np.where(pointed, _MOST_FLOAT_DIGITS, np.where(negative, _MOST_INT64_DIGITS, _MOST_UINT64_DIGITS))
    found: NDArray[np.int64] = starts[(digits > most) | (length == _LONG)]
    return found


def json_of(value: Any) -> bytes:
    """Return the JSON of any value that a row may hold.

    Numbers keep all their digits; values that JSON has no number for (NaN, infinities) become strings.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return _written(value)


def carried_json(columns: Mapping[str, Any]) -> bytes:
    """Return the JSON of the carried columns, for `carried_columns` to read. Raises as `json_of` does."""
    try:
        return orjson.dumps(columns, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return EXACT_START + _written(dict(columns))[1:]


def splice_carried(first: bytes, more: bytes) -> bytes:
    """Join two objects that `carried_json` wrote. They are spliced as text, so that no number is parsed and changed."""
    start = EXACT_START if EXACT_START in (first[:2], more[:2]) else b"{"
    return start + first.removeprefix(EXACT_START).removeprefix(b"{")[:-1] + b"," + more[1:].lstrip()


def carried_columns(stored: bytes) -> dict[str, Any]:
    """Read what `carried_json` wrote, with every number as it was."""
    columns: dict[str, Any] = loads(stored) if stored.startswith(EXACT_START) else orjson.loads(stored)
    return columns


def request_json(body: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """Return the JSON of a request. Raises InvalidRow if a value cannot be sent (NaN, bytes, a lone surrogate)."""
    option = orjson.OPT_PASSTHROUGH_SUBCLASS | (orjson.OPT_SORT_KEYS if sort_keys else 0)
    try:
        return orjson.dumps(body, option=option)
    except orjson.JSONEncodeError as error:
        try:
            return orjson.dumps(body, option=option, default=_in_request)
        except orjson.JSONEncodeError as still:
            cause = still.__cause__
            raise cause if isinstance(cause, InvalidRow) else _unwritable(error) from error


def _in_request(value: object) -> orjson.Fragment:
    match value:
        case ExactInt():
            return orjson.Fragment(str(int(value)))
        case Digits() if isfinite(value):
            return orjson.Fragment(value.text)
        case Digits():
            raise InvalidRow("wrong_type", f"the request would hold {_named(value)}, which JSON has no number for")
        case bytes():
            raise InvalidRow("invalid_encoding", "the request would hold text that is not UTF-8")
    raise TypeError(type(value).__name__)


def _named(value: Digits) -> str:
    return value.text if value.text in ("NaN", "Infinity", "-Infinity") else "a number out of range"


def _unwritable(error: Exception) -> InvalidRow:
    if "surrogate" in str(error):
        return InvalidRow("invalid_json", "the request would hold half a character (a lone surrogate)")
    # orjson reads deeper nesting than it writes.
    return InvalidRow("invalid_json", "nested too deeply")


def _written(value: Any) -> bytes:
    match value:
        case dict():
            return b"{" + b",".join(_text(key) + b":" + _written(inner) for key, inner in value.items()) + b"}"
        case list() | tuple():
            return b"[" + b",".join(map(_written, value)) + b"]"
        case ExactInt():
            return str(int(value)).encode()
        case Digits() if isfinite(value):
            return value.text.encode()
        case Digits():
            # No double can hold it, and many JSON parsers would refuse the whole line.
            return orjson.dumps(value.text)
        case str():
            return _text(value)
        case bytes():
            from batch.reading.formats.arrow_values import readable

            return orjson.dumps(readable(value))
    return orjson.dumps(value)


def _text(value: str) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # A lone surrogate (half a character): JSON can escape it, UTF-8 cannot encode it.
        return json.dumps(value).encode()
