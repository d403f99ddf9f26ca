"""Reads from an answer's headers or body how long the server asks us to wait."""

from collections.abc import Iterator
from typing import Any

from batch.clock import WallClock
from batch.dispatch.transports.rate_limit_headers import Header, number, parse_timestamp, seconds_until, server_time

# Names of the fields in which servers state the wait: most in seconds, or as a duration with a unit; prose is not read.
# `estimated_time` is Hugging Face's, for a model that is loading.
_SECONDS = (
    "retryDelay",
    "retry_delay",
    "retry_after",
    "retryAfter",
    "retry-after",
    "Retry-After",
    "retry_after_seconds",
    "retryAfterSeconds",
    "retry_in",
    "retry_in_seconds",
    "wait_seconds",
    "resets_in_seconds",
    "estimated_time",
)
_MILLISECONDS = ("retry_after_ms", "retryAfterMs", "retry-after-ms")
# Fields that state when the wait ends. The last two occur where OpenRouter repeats the headers of the provider behind
# it.
_MOMENTS = ("resets_at", "reset_at", "retry_at", "X-RateLimit-Reset", "x-ratelimit-reset")


def retry_after(header: Header, wall: WallClock) -> float | None:
    """Return the seconds to wait that the headers state, however long; `None` if they state none.

    The header `retry-after-ms` comes first, then `retry-after`, in seconds (whole or not) or as a date.
    """
    milliseconds = number(header("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = header("retry-after")
    seconds = number(text)
    if seconds is None and text:
        until = parse_timestamp(text)
        seconds = None if until is None else until - server_time(header, wall)
    return None if seconds is None else max(0.0, seconds)


def wait_in(parsed: Any, now: float) -> float | None:
    """Return the seconds to wait that a field of an error's body states; `None` if there is no such field.

    Args:
        now: seconds since 1970, by the server's clock.
    """
    return next((wait for place in _places(parsed) for wait in _waits(place, now)), None)


def _places(parsed: Any) -> Iterator[dict[str, Any]]:
    """Yield the objects of an error's body that may state a wait, the most precise first."""
    if isinstance(parsed, list):
        parsed = parsed[0] if parsed else None
    if not isinstance(parsed, dict):
        return
    error = parsed.get("error")
    for outer in (error, parsed):
        if isinstance(outer, dict):
            details = outer.get("details")
            for detail in details if isinstance(details, list) else [details]:
                if isinstance(detail, dict):
                    yield detail
            metadata = outer.get("metadata")
            if isinstance(metadata, dict):
                yield metadata
                if isinstance(metadata.get("headers"), dict):
                    yield metadata["headers"]
            yield outer


def _waits(place: dict[str, Any], now: float) -> Iterator[float]:
    """Yield the seconds to wait that the fields of one object state."""
    for name in _SECONDS:
        yield from _seconds(place.get(name), now)
    for name in _MILLISECONDS:
        for milliseconds in _seconds(place.get(name), now):
            yield milliseconds / 1000
    for name in _MOMENTS:
        yield from _seconds(place.get(name), now)


def _seconds(value: Any, now: float) -> Iterator[float]:
    """Yield the seconds that a field states, if it states any.

    The value is a number, a duration such as `17s`, a date, or `{"seconds": 17}` as protocol buffers write it.
    """
    if isinstance(value, dict):
        value = value.get("seconds")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return
    seconds = seconds_until(str(value), now)
    if seconds is not None:
        yield seconds
