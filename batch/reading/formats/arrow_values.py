"""Converts Arrow columns into Python values that JSON can hold, exact to the last digit.

`to_pylist` would not do: it refuses dates after the year 9999 and, without pandas, times with nanoseconds, and one such
cell makes it refuse the whole column.
"""

from base64 import b64encode
from collections.abc import Iterator
from decimal import Decimal
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from batch.reading.digits import Digits, not_finite

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MILLISECONDS_A_DAY = 86_400_000


def plain_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array, one per row.

    Dates and times become ISO 8601 text with as many digits as needed, durations become seconds, decimals become text
    with all their digits, bytes become text if they are UTF-8 and base64 otherwise, maps become lists of pairs. NaN and
    infinities become `batch.reading.digits.Digits`, floats that are written as text. A text column's value that is not
    UTF-8 stays bytes, which a request cannot hold.
    """
    kind = column.type
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return _texts(column)
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind):
        return _listed(column)
    if types.is_floating(kind):
        return _floats(column)
    if types.is_run_end_encoded(kind):  # before `is_nested`, which is true for it too
        return plain_values(pc.run_end_decode(column))
    if types.is_nested(kind):
        return _nested(column, kind)
    if types.is_dictionary(kind):
        words = plain_values(column.dictionary)
        return [None if index is None else words[index] for index in column.indices.to_pylist()]
    if types.is_temporal(kind):
        return _temporal(column, kind)
    if types.is_decimal(kind):
        return [None if value is None else format(value, "f") for value in column.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _listed_plainly(column) if isinstance(kind, pa.UuidType) else plain_values(column.storage)
    return _listed_plainly(column)


def _listed(column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _texts(column: Any) -> list[Any]:
    try:
        return _listed(column)
    except UnicodeDecodeError:
        binary = {"large_string": pa.large_binary(), "string_view": pa.binary_view()}.get(str(column.type), pa.binary())
        return [_text_or_bytes(value) for value in column.view(binary).to_pylist()]


def _text_or_bytes(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _floats(column: Any) -> list[Any]:
    values = _listed(column)
    if pc.all(pc.is_finite(column)).as_py() in (True, None):
        return values
    return [value if value is None or isfinite(value) else not_finite(value) for value in values]


def _nested(column: Any, kind: Any) -> list[Any]:
    if pa.types.is_struct(kind):
        return list(_structs(column, kind))
    if pa.types.is_map(kind):
        pairs = pa.struct([pa.field("key", kind.key_type), pa.field("value", kind.item_type)])
        listed = plain_values(column.cast(pa.list_(pairs)))
        return [None if found is None else [[pair["key"], pair["value"]] for pair in found] for found in listed]
    if pa.types.is_union(kind):
        return _listed_plainly(column)
    return list(_lists(plain_values(column.flatten()), pc.list_value_length(column).to_pylist()))


def _structs(column: Any, kind: Any) -> Iterator[dict[str, Any] | None]:
    names = [field.name for field in kind]
    fields = [plain_values(field) for field in column.flatten()]
    if not column.null_count and fields:
        yield from (dict(zip(names, values, strict=True)) for values in zip(*fields, strict=True))
        return
    for index, valid in enumerate(column.is_valid().to_pylist()):
        yield {name: values[index] for name, values in zip(names, fields, strict=True)} if valid else None


def _lists(values: list[Any], lengths: list[int | None]) -> Iterator[list[Any] | None]:
    """Rebuild the lists that were flattened into `values`; a length of `None` is a null list."""
    start = 0
    for length in lengths:
        if length is None:
            yield None
        else:
            yield values[start : start + length]
            start += length


def _temporal(column: Any, kind: Any) -> list[Any]:
    if pa.types.is_interval(kind):
        return _listed_plainly(column)
    valid = column.is_valid().to_pylist() if column.null_count else None
    texts = _temporal_values(column, kind)
    return texts if valid is None else [text if there else None for text, there in zip(texts, valid, strict=True)]


def _temporal_values(column: Any, kind: Any) -> list[Any]:
    """Return the texts and numbers of a column of dates or times; they are meaningless for null rows."""
    if pa.types.is_date(kind):
        days = _whole(column, 32) if pa.types.is_date32(kind) else _whole(column) // _MILLISECONDS_A_DAY
        return _iso(days.astype("M8[D]"))
    per = _PER_SECOND[kind.unit]
    if pa.types.is_duration(kind):
        return [_seconds(value, per) for value in _whole(column).tolist()]
    if pa.types.is_time(kind):
        return [_clock(value, per) for value in _whole(column, kind.bit_width).tolist()]
    return _timestamps(column, kind.tz, per)


def _whole(column: Any, bits: int = 64) -> NDArray[np.int64]:
    """Return the whole numbers in which temporal values are stored; 0 for null."""
    stored = column.cast(pa.int32() if bits == 32 else pa.int64())
    numbers: NDArray[np.int64] = stored.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return numbers


def _timestamps(column: Any, zone: str | None, per: int) -> list[str]:
    moments = _whole(column)
    offsets: NDArray[np.int64] | None = None
    if zone is not None:
        offsets = np.zeros_like(moments)
        try:
            local = _whole(pc.local_timestamp(column))
        except pa.ArrowInvalid:
            # This machine does not know the time zone; UTC names the same instant.
            local = moments
        offsets, moments = (local - moments) // per, local
    seconds, fractions = np.divmod(moments, per)
    texts = _iso(seconds.astype("M8[s]"))
    if fractions.any():
        texts = [text + _fraction(part, per) for text, part in zip(texts, fractions.tolist(), strict=True)]
    if offsets is not None:
        shown = {offset: _offset(offset) for offset in np.unique(offsets).tolist()}
        texts = [text + shown[offset] for text, offset in zip(texts, offsets.tolist(), strict=True)]
    return texts


def _iso(moments: NDArray[np.datetime64]) -> list[str]:
    texts: list[str] = np.datetime_as_string(moments).tolist()
    # NumPy pads negative years to four characters including the sign.
    return [f"-{text[1:].zfill(len(text))}" if text.startswith("-") else text for text in texts]


def _fraction(part: int, per: int) -> str:
    """The fraction of a second as `isoformat` writes it: empty, or 6 digits; 9 digits if there are nanoseconds."""
    nanoseconds = part * (10**9 // per)
    if not nanoseconds:
        return ""
    micro, nano = divmod(nanoseconds, 1000)
    return f".{nanoseconds:09d}" if nano else f".{micro:06d}"


def _offset(seconds: int) -> str:
    sign = "-" if seconds < 0 else "+"
    minutes, rest = divmod(abs(seconds), 60)
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}" + (f":{rest:02d}" if rest else "")


def _clock(value: int, per: int) -> str:
    seconds, part = divmod(value, per)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}" + _fraction(part, per)


def _seconds(value: int, per: int) -> float:
    """A duration in seconds; as Digits if no float holds all its digits."""
    nearest = value / per
    exact = Decimal(value).scaleb(1 - len(str(per)))
    return nearest if Decimal(repr(nearest)) == exact else Digits.of(format(exact, "f"))


def _listed_plainly(column: Any) -> list[Any]:
    return [_plain(value) for value in column.to_pylist()]


def _plain(value: Any) -> Any:
    """Convert bytes, and values of types that are rare in files."""
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if isfinite(value) else not_finite(value)
        case bytes():
            return readable(value)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
    return str(value)


def readable(value: bytes) -> str:
    """Decode bytes as UTF-8, or return them as base64 if they are not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()
