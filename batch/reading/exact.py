"""JSON whose numbers keep their digits.

orjson, which is fast, takes a whole number beyond 64 bits for a float and writes NaN as null. What it cannot hold is
rare, so everything goes through orjson first. Values that need more are `ExactInt`, `Digits` and bytes, which orjson
refuses to write under `OPT_PASSTHROUGH_SUBCLASS`: the refusal leads here, and rows without such values cost nothing.
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

# Carried columns that orjson would read wrongly begin with this, which orjson itself never writes.
EXACT_START = b"{ "

_MOST_INT_DIGITS = 4300  # Python refuses to turn more into a number, which would take long
_MAX_INT64, _MIN_INT64, _MAX_UINT64 = 2**63 - 1, -(2**63), 2**64 - 1

# A float holds 17 digits at most, and 64 bits any whole number of 18. Decimals of 16 or 17 digits are left to orjson:
# floats are written with as many, so they are common, and the nearest float is meant.
_MOST_FLOAT_DIGITS = 17
_MOST_INT64_DIGITS, _MOST_UINT64_DIGITS = 18, 19
# Any number with more has a run of 19 digits and points, so two of the positions that are a multiple of this lie in it.
_STRIDE = 9
# More than the longest float that Python writes, 0.00012345678901234567, has.
_LONG = 24
# Bytes that are looked at together: they stay in a core's own cache.
_PIECE = 1 << 17
_POINT, _MINUS, _ZERO, _NINE = (ord(character) for character in ".-09")


class ExactRecord(dict[str, Any]):
    """A row with values that are not finite among its columns."""


class ExactInt(int):
    """A whole number beyond 64 bits."""


def loads(raw: bytes | str) -> Any:
    """Parse JSON in which NaN, Infinity and numbers of any length may stand.

    Raises ValueError for what is no JSON, and RecursionError for what is nested too deeply.
    """
    return json.loads(raw, parse_int=_int, parse_float=_float, parse_constant=Digits.of)


def _int(text: str) -> int | float:
    if len(text) > _MOST_INT_DIGITS:
        return Digits.of(text)
    return exact_int(int(text))


def exact_int(value: int) -> int:
    """The number; one that 64 bits do not hold as an ExactInt."""
    return value if _MIN_INT64 <= value <= _MAX_UINT64 else ExactInt(value)


def _float(text: str) -> float:
    value = float(text)
    if isinf(value):
        return Digits.of(text)
    try:
        return value if Decimal(repr(value)) == Decimal(text) else Digits.of(text)
    except InvalidOperation:
        # Its exponent has 19 digits or more, which is beyond what Decimal takes.
        return Digits.of(text)


def long_number_lines(data: bytes) -> frozenset[int]:
    """Where the lines start that may hold numbers which orjson would change.

    What merely looks like such a number, as an address or a hash within a string, makes its line slow and nothing else.
    """
    bytes_ = np.frombuffer(data, np.uint8)
    found = set()
    for start in range(0, len(bytes_), _PIECE):
        # A run belongs to the piece that it starts in; a byte more in front shows whether it starts there.
        first = max(start - 1, 0)
        piece = bytes_[first : start + _PIECE + _LONG]
        if _may_have_runs(piece):
            for at in (first + _long_runs(piece)).tolist():
                found.add(data.rfind(b"\n", 0, at) + 1)
    return frozenset(found)


def _may_have_runs(piece: NDArray[np.uint8]) -> bool:
    """Looks at two bytes of nine: any long run holds three neighbours of these."""
    sampled = _numeric(piece[::_STRIDE])
    between = _numeric(piece[_STRIDE // 2 :: _STRIDE])
    return bool((sampled[:-1] & sampled[1:] & between[: len(sampled) - 1]).any())


def _numeric(bytes_: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Digits and points; also `/`, which stands between them."""
    numeric: NDArray[np.bool_] = bytes_ - _POINT <= _NINE - _POINT
    return numeric


def _long_runs(piece: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Starts of the runs of digits and points that no float and no 64 bits may hold."""
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
    """JSON of any value that a row may hold: numbers with all their digits, and what has none in JSON as text.

    Raises RecursionError for what is nested too deeply.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return _written(value)


def carried_json(columns: Mapping[str, Any]) -> bytes:
    """JSON of the columns that are carried along, which `carried_columns` reads. Raises as `json_of`."""
    try:
        return orjson.dumps(columns, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError:
        return EXACT_START + _written(dict(columns))[1:]


def joined(first: bytes, more: bytes) -> bytes:
    """The columns of both, which `carried_json` wrote: spliced as text, so that no number is read and changed."""
    start = EXACT_START if EXACT_START in (first[:2], more[:2]) else b"{"
    return start + first.removeprefix(EXACT_START).removeprefix(b"{")[:-1] + b"," + more[1:].lstrip()


def carried_columns(stored: bytes) -> dict[str, Any]:
    """What `carried_json` wrote, with numbers as they were."""
    columns: dict[str, Any] = loads(stored) if stored.startswith(EXACT_START) else orjson.loads(stored)
    return columns


def request_json(body: Mapping[str, Any], *, sort_keys: bool = False) -> bytes:
    """JSON of a request. Raises InvalidRow where it holds what no request can hold."""
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
            # No double holds it, and many readers of JSON would refuse the whole line.
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
        # Half a character: JSON has an escape for it, UTF-8 has no bytes.
        return json.dumps(value).encode()
