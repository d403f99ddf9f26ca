"""Reads what servers state about their limits in the headers of their answers."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from math import isfinite

from batch.clock import WallClock
from batch.dispatch.providers.base import LimitHeaders
from batch.dispatch.providers.registry import PROVIDERS
from batch.limits import Allowance, Measure
from schemas.endpoints import Provider as ProviderName

Header = Callable[[str], str | None]
"""Gives an answer's header by its lower-case name."""

# A limit counts as one per minute unless its reset is further away than this (clocks with whole seconds may be off by
# two): Groq, and OpenAI's free tier, state their daily limits on requests under the same names.
_MINUTE_SECONDS = 62.0
# Larger numbers are no limits.
_MOST = 1e12
_LONGEST_SECONDS = 31 * 86_400.0
# From these numbers on, a reset is in seconds or in milliseconds since 1970.
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
# `100;w=60` of the IETF's drafts, `100;window=60` of older ones.
_POLICY = re.compile(r"([0-9]{1,12}) *; *w(?:indow)?=([0-9]{1,9})")


def parse_rate_limits(header: Header, provider: ProviderName, wall: WallClock) -> tuple[Allowance, ...]:
    """What an answer's headers state about the server's limits, at most once per measure.

    If several limits of one measure are stated (an organisation's and a project's tokens, estimated ones and used
    ones), all of them hold: the result has the smallest limit, the least that remains, and the reset of that one.

    Numbers that cannot be meant are left out: negative ones, as Azure's Responses API sends, 0 for a limit, absurdly
    large ones. A limit of another period than a minute is returned without `limit`; what remains of it still counts.
    """
    record = PROVIDERS[provider]
    for sign in record.limit_signs:
        if header(sign) is not None:
            break
    else:
        return ()
    now = server_time(header, wall)
    found: dict[Measure, Allowance] = {}
    for names in record.even_limits + record.windowed_limits:
        said = _allowance(header, names, now)
        if said is not None:
            other = found.get(said.measure)
            found[said.measure] = said if other is None else _both(other, said)
    return tuple(found.values())


def window_reset_after(header: Header, provider: ProviderName, wall: WallClock) -> float | None:
    """Seconds until every used-up limit has something left again; `None`: none is used up, or the time is unknown.

    Only the reset of a limit that is counted in windows tells this: Azure's, and those of the IETF's drafts. The reset
    of a limit that fills again evenly (OpenAI's, Anthropic's) is when it is full: with 60 requests per minute, the next
    one is possible a second after the last, while the reset is still a minute away.
    """
    now = server_time(header, wall)
    said = [_allowance(header, names, now) for names in PROVIDERS[provider].windowed_limits]
    waits = [a.reset_seconds for a in said if a is not None and a.remaining == 0 and a.reset_seconds]
    return max(waits, default=None)


def _allowance(header: Header, names: LimitHeaders, now: float) -> Allowance | None:
    remaining_text = header(names.remaining)
    if remaining_text is None:
        return None
    if header(f"llm_provider-{names.remaining}") is not None:
        # LiteLLM's proxy repeats the headers of the one deployment that answered, but may have many deployments.
        return None
    limit_text = header(names.limit)
    limit = _count(limit_text)
    if limit_text is not None and not limit:
        # -1 and 0 mean that there is no limit, so what is stated to remain of it means nothing.
        return None
    remaining = _count(remaining_text)
    reset = seconds_until(header(names.reset), now)
    if limit is not None and names.policy is not None:
        limit = _per_minute(limit, f"{limit_text}, {header(names.policy)}")
    elif reset is not None and reset > _MINUTE_SECONDS:
        limit = None
    if limit is None and remaining is None:
        return None
    return Allowance(names.measure, limit, remaining, reset)


def _both(one: Allowance, other: Allowance) -> Allowance:
    limits = [a.limit for a in (one, other) if a.limit is not None]
    # If equally much remains of both, prefer the one that states a reset.
    scarce = min((one, other), key=lambda a: (_MOST if a.remaining is None else a.remaining, a.reset_seconds is None))
    return Allowance(one.measure, min(limits, default=None), scarce.remaining, scarce.reset_seconds)


def _per_minute(limit: float, policy: str) -> float | None:
    for quota, seconds in _POLICY.findall(policy):
        if float(quota) == limit and float(seconds) > 0:
            return limit * 60 / float(seconds)
    return None


def _count(text: str | None) -> float | None:
    """A count; of a list of counts, as `10, 10;w=1`, the first."""
    value = number(text)
    if value is None and text:
        value = number(re.split("[,;]", text, maxsplit=1)[0])
    return value if value is not None and 0 <= value <= _MOST else None


def number(text: str | None) -> float | None:
    """A finite number, or `None`."""
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and isfinite(value) else None


def seconds_until(text: str | None, now: float) -> float | None:
    """Seconds from `now` until a reset, 0.0 if it has passed; `None`: it is not stated, or over a month away.

    A reset may be written as a Go duration (`1s`, `6m0s`, `12ms`, `1h2m3.5s`), as seconds without a unit, as seconds or
    milliseconds since 1970, or as a date (RFC 3339, or as HTTP has them).
    """
    if not text:
        return None
    if ":" in text:
        then = parse_timestamp(text)
        seconds = None if then is None else max(0.0, then - now)
    elif _DURATION.fullmatch(text):
        seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _PART.findall(text))
    else:
        seconds = number(text)
        if seconds is not None and seconds >= _EPOCH_SECONDS:
            seconds = max(0.0, (seconds / 1000 if seconds >= _EPOCH_MILLISECONDS else seconds) - now)
    return seconds if seconds is not None and 0 <= seconds <= _LONGEST_SECONDS else None


def server_time(header: Header, wall: WallClock) -> float:
    """Seconds since the epoch by the server's `date` header, since our clock may be off; without it, by our clock."""
    said = header("date")
    then = parse_timestamp(said) if said else None
    return wall() if then is None else then


# Many answers state the same second and the same reset, and parsing an HTTP date takes 6 us.
@lru_cache(maxsize=64)
def parse_timestamp(text: str) -> float | None:
    """Seconds since the epoch of a date as RFC 3339 or HTTP has them, UTC where it names no zone; else `None`."""
    try:
        then = datetime.fromisoformat(text)
    except ValueError:
        try:
            then = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
    return (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp()
