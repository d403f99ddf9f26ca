"""JSON as Python's `json.dumps` and others write it, which is not quite JSON. Slow: only for what orjson refuses."""

import json
import math
from typing import Any

import orjson

_USAGE = b'"usage"'


def loads(raw: bytes) -> Any:
    """The value that `raw` stands for, such that orjson can write it.

    NaN and infinite numbers are `None`, half a surrogate pair and broken UTF-8 are U+FFFD, whole numbers beyond 64 bits
    are floats (`None` where they are too large for one), and line breaks may stand in strings.

    Raises:
        ValueError: it is no JSON even so.
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
    """The last `usage` object in what is no JSON as a whole, as in an answer that was cut; `None`: there is none."""
    place = raw.rfind(_USAGE)
    if place < 0:
        return None
    text = raw[place + len(_USAGE) :].decode(errors="replace").lstrip().removeprefix(":").lstrip()
    try:
        return json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None


def _as_float(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def _clean(value: Any) -> Any:
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
