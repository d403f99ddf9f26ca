"""How long a pool waits for endpoints that do not answer."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from batch.clock import Clock, WallClock
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import LimitCost
from batch.errors import BatchRouterError


class PoolUnreachable(BatchRouterError):
    """No endpoint has answered for too long, or all ask for a longer pause than the job allows."""


class Wait(NamedTuple):
    """No endpoint of a pool may be sent a request for a while."""

    seconds: float
    words: str
    """Url of the endpoint that may be sent a request first, and its last error."""


class Patience:
    """Decides when to stop waiting for a pool's endpoints."""

    def __init__(self, clock: Clock, wall: WallClock, give_up_seconds: float, longest_wait: float = math.inf) -> None:
        """
        Args:
            give_up_seconds: how long to wait for endpoints that only fail.
            longest_wait: how long to wait, in seconds, for endpoints that only throttle, and for the time at which they
                ask to be sent requests again.
        """
        self._clock = clock
        self._wall = wall
        self._give_up_seconds = give_up_seconds
        self._longest_wait = longest_wait

    def look(self, model: str, endpoints: Sequence[Endpoint], cost: LimitCost, troubled_since: float | None) -> None:
        """Check whether to go on waiting. Called when no endpoint can take a request of this cost now.

        Args:
            troubled_since: when an attempt first failed after the last good answer.

        Raises:
            PoolUnreachable: the request would wait for too long.
        """
        left = [e for e in endpoints if not e.out]
        now = self._clock()
        busy = any(e.in_flight for e in left)
        waits = [e.health.delay() if busy else max(e.health.delay(), e.delay(cost)) for e in left]
        soonest = min(waits, default=0.0)
        if self._longest_wait < soonest < math.inf:
            first = left[waits.index(soonest)]
            raise PoolUnreachable(
                f"model {model!r}: {first.url} asks to stay away until {self.moment(soonest)}, longer than "
                f"dispatch.longest_wait{_because([first])}"
            )
        down = [e.health.down_since for e in left if e.health.down_since is not None]
        if len(down) == len(left):
            if now - max(down, default=now) >= self._give_up_seconds:
                seconds = f"{self._give_up_seconds:.0f} seconds"
                raise PoolUnreachable(f"model {model!r}: no endpoint has answered for {seconds}{_because(left)}")
        elif troubled_since is not None and not busy:
            silent = now - troubled_since
            if silent >= max(self._longest_wait, self._give_up_seconds):
                raise PoolUnreachable(f"model {model!r}: nothing was answered for {duration(silent)}{_because(left)}")

    def moment(self, seconds: float) -> str:
        """The time in `seconds` from now, as `Thu 03 Dec 03:10 UTC (in 2 d 7 h)`."""
        now = self._wall()
        return f"{date(now + seconds, now)} (in {duration(seconds)})"


def date(moment: float, now: float) -> str:
    """Seconds since 1970 as `Thu 03 Dec 03:10 UTC`, with its year if it is not that of `now`, or as `after the year
    9999`.
    """
    try:
        then, today = datetime.fromtimestamp(moment, UTC), datetime.fromtimestamp(now, UTC)
    except (ValueError, OverflowError, OSError):
        # A server's headers may ask for a date that cannot be represented.
        return "after the year 9999"
    year = "" if then.year == today.year else f" {then.year}"
    return f"{then:%a %d %b}{year} {then:%H:%M} UTC"


def duration(seconds: float) -> str:
    """A number of seconds in its two largest units, as `2 d 7 h`, `1 h 20 min`, `45 s`."""
    whole = round(seconds)
    parts = [(whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count) or "0 s"


def _because(endpoints: Sequence[Endpoint]) -> str:
    """The last error of each endpoint, to be appended to a message."""
    return "".join(f"; {e.url}: {e.health.reason}" for e in endpoints if e.health.reason)
