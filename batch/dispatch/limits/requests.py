"""Limits on requests, kept on our side. A limiter says how long to wait; it never waits itself."""

import math
from collections import deque
from typing import Protocol

from batch.clock import Clock
from batch.dispatch.request import LimitCost
from batch.limits import Allowance, Measure

# Sums of intervals carry rounding errors: a request that is due within a microsecond is due now, and the pace is
# lowered by a little more than that.
ROUNDING_SECONDS = 1e-6
_ROUNDING_MARGIN = 1 + 1e-7

# Without a configured burst, a pace still catches up after late timers: by this many seconds of requests, at least by
# one. Below `_CATCH_UP_FROM_RPM`, that one request would cost more of the pace than a timer a few milliseconds late
# does.
_CATCH_UP_SECONDS = 0.05
_CATCH_UP_FROM_RPM = 150

# After a configured burst, requests keep this much behind the server's bucket, at most half of what it holds: two
# requests may come closer together on their way, and the bucket has nothing left. A bucket of a single request can hold
# nothing back, so the pace is lowered instead.
_BEHIND_SECONDS = 0.01
_SINGLE_PACE = 0.992

# On their way, two requests may come closer together by this much, so a window is kept longer by as much. It is at most
# `_MOST_JITTER` of the window: beyond that, waiting costs more than a refusal now and then.
_JITTER_SECONDS = 0.1
_MOST_JITTER = 0.0115


def jitter(window: float) -> float:
    """Seconds by which a window is kept longer than the server's."""
    return min(_JITTER_SECONDS, _MOST_JITTER * window)


class Limiter(Protocol):
    """One limit of one endpoint."""

    measure: Measure
    """What it counts; by this, a limit that the server states finds its limiter."""

    may_owe: bool
    """May an attempt that is larger than the limit has left be sent, so that later ones wait for longer?"""

    def delay(self, cost: LimitCost) -> float:
        """Seconds until an attempt of this cost may start; 0.0: now; infinity: not before another attempt ends."""
        ...

    def take(self, cost: LimitCost) -> None:
        """Count an attempt that starts now. Call it only right after `delay` returned 0.0."""
        ...

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        """An attempt that started `age` seconds ago has ended: replace what it took by what it used."""
        ...

    def seconds(self, cost: LimitCost) -> float:
        """Seconds of the limit's rate that an attempt of this cost takes."""
        ...

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
        """Correct the limiter by what the server states about the limit.

        Args:
            since: what was taken by attempts that started after the answered one; the server may have counted them or
                not.
            age: seconds since the answered attempt started; the answer's headers may be as old.
        """
        ...


class RequestPace:
    """Requests per minute by GCRA: one timestamp, equal to a token bucket of `burst` requests.

    A configured burst is allowed on top of the pace: any window of `w` seconds sees at most `rpm * w / 60 + burst`
    requests. A full bucket is emptied at once; the requests after that keep `_BEHIND_SECONDS` behind it. Without a
    configured burst, no minute holds more than `rpm` requests: the pace is lowered by the few requests that may catch
    up after a late timer.
    """

    measure: Measure = "requests"
    may_owe = False

    def __init__(self, rpm: float, burst: int | None, clock: Clock) -> None:
        self._rpm = rpm
        self._burst = burst
        self._clock = clock
        self._next = clock()
        # How many requests may still be sent of a bucket that was full.
        self._at_once = 0
        self.interval = self.tolerance = self._behind = 0.0
        self._pace(rpm)

    def _pace(self, rpm: float) -> None:
        if self._burst is None:
            catch_up = max(1, math.floor(rpm / 60 * _CATCH_UP_SECONDS)) if rpm >= _CATCH_UP_FROM_RPM else 0
            pace, burst = rpm - catch_up, 1 + catch_up
        else:
            pace, burst = rpm * (_SINGLE_PACE if self._burst == 1 else 1.0), self._burst
        self.interval = 60.0 / pace * _ROUNDING_MARGIN
        self.tolerance = self.interval * (burst - 1)
        if self._burst is not None:
            self._behind = min(_BEHIND_SECONDS, self.tolerance / 2)

    def delay(self, cost: LimitCost) -> float:
        wait = self._next - self.tolerance - self._clock()
        if not self._at_once:
            wait += self._behind
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        now = self._clock()
        if self._burst is not None:
            if now >= self._next:
                self._at_once = self._burst - 1
            elif self._at_once:
                self._at_once -= 1
        self._next = max(now, self._next) + self.interval * cost.requests

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        """A request counts from its start, however it ends."""

    def seconds(self, cost: LimitCost) -> float:
        return self.interval * cost.requests

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
        """Only lower the pace, never raise it above the configured one: other clients may share the server's limit."""
        if said.limit is not None and said.limit > 0:
            self._pace(min(self._rpm, said.limit))
        if said.remaining is not None:
            left = max(said.remaining, said.remaining + age / self.interval - since.requests)
            self._next = max(self._next, self._clock() + self.tolerance - (left - 1) * self.interval)


class RequestWindow:
    """At most `rpm`'s share of requests in any `seconds`, wherever the server's own windows begin.

    The window is kept a little longer, since two requests may come closer together on their way, and a server counts
    from their arrival.
    """

    measure: Measure = "requests"
    may_owe = False

    def __init__(self, rpm: float, seconds: float, clock: Clock) -> None:
        self._seconds = seconds + jitter(seconds)
        self._rpm = rpm
        # Servers round down: a limit of 1.5 requests a window allows one.
        self._most = self._limit = max(1, math.floor(rpm * seconds / 60 + 1e-9))
        self._clock = clock
        self._ends: deque[float] = deque()
        self._closed_until = -math.inf

    def delay(self, cost: LimitCost) -> float:
        now = self._clock()
        while self._ends and self._ends[0] <= now + ROUNDING_SECONDS:
            self._ends.popleft()
        wait = self._closed_until - now
        if len(self._ends) >= self._limit:
            wait = max(wait, self._ends[len(self._ends) - self._limit] - now)
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        self._ends.append(self._clock() + self._seconds)

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        """A request counts from its start, however it ends."""

    def seconds(self, cost: LimitCost) -> float:
        return self._seconds / self._limit

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
        if said.limit is not None and said.limit > 0:
            # Headers state the limit of a minute or of the window: if less than configured, the window shrinks as much.
            self._limit = max(1, min(self._most, math.floor(self._most * said.limit / self._rpm)))
        if said.remaining is not None and said.remaining < 1 and said.reset_seconds is not None:
            self._closed_until = max(self._closed_until, self._clock() + said.reset_seconds - age)


class InFlight:
    """Requests in flight at one endpoint, and how many are allowed."""

    def __init__(self, ceiling: int, allowed: float) -> None:
        """
        Args:
            ceiling: the most requests that are ever allowed.
            allowed: the most requests that are allowed for now.
        """
        self.ceiling = ceiling
        self.allowed = allowed
        self.in_flight = 0

    def delay(self) -> float:
        """0.0: another attempt may start; infinity: not before one ends."""
        return 0.0 if self.in_flight < int(self.allowed) else math.inf

    def take(self) -> None:
        """An attempt starts."""
        self.in_flight += 1

    def release(self) -> None:
        """An attempt ended, in whatever way."""
        self.in_flight -= 1


class Concurrency(InFlight):
    """Limits the requests in flight to the configured ceiling, and to fewer after refusals.

    Additive increase, gentle decrease: a refusal takes away a twentieth, at most once per round trip, and as many good
    answers as are allowed in flight give one request back.
    """

    decrease = 0.95

    def __init__(self, ceiling: int) -> None:
        super().__init__(ceiling, float(ceiling))
        self._lowered_at = -math.inf

    def answered(self, tokens: int, started: float, now: float) -> None:
        """A good answer of so many tokens came, to an attempt that started then."""
        if self.allowed < self.ceiling:
            self.allowed = min(float(self.ceiling), self.allowed + 1.0 / self.allowed)

    def refused(self, started: float, now: float) -> bool:
        """The server refused an attempt, to slow us down. One from before the last decrease says nothing new.

        Returns:
            Whether this limit explains the refusal, so that no other limit need be lowered: never, as it is configured.
        """
        if started >= self._lowered_at:
            self.allowed = max(1.0, min(self.allowed, float(self.in_flight)) * self.decrease)
            self._lowered_at = now
        return False
