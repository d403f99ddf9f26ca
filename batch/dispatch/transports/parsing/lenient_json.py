"""Reads JSON that is not quite valid, as Python's `json.dumps` and others write it. Slow: only if orjson refuses it."""

import json
import math
from typing import Any

import orjson

_USAGE = b'"usage"'


def loads(raw: bytes) -> Any:
    """Parse `raw` into a value that orjson can write.

    NaN and infinite numbers become `None`, half a surrogate pair and broken UTF-8 become U+FFFD, whole numbers beyond
    64 bits become floats (`None` if they are too large for one), and strings may contain line breaks.

    Raises:
        ValueError: it is not JSON even so.
    """
    try:
        value = json.loads(raw.decode("utf-8-sig", errors="replace"), strict=False)
        cleaned = _clean(value)
        orjson.dumps(cleaned)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from error
    return cleaned


def usage_in(raw: bytes) -> Any:
    """Return the value of the last `"usage"` in text that is not JSON as a whole, such as an answer that was cut off.

    The result is `None` if there is no such value, or if it cannot be parsed.
    """
    place = raw.rfind(_USAGE)
    if place < 0:
        return None
    text = raw[place + len(_USAGE) :].decode(errors="replace").lstrip().removeprefix(":").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _as_float(value: int) -> float | None:
    """Convert a whole number to a float; `None` if it is too large for one."""
    try:
        return float(value)
    except OverflowError:
        return None


def _clean(value: Any) -> Any:
    """Replace in a parsed value, at any depth, what orjson cannot write."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -(2**63) <= value < 2**64 else _as_float(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    return value
