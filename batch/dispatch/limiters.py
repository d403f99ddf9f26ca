"""What an endpoint allows, held on our side. Limiters decide; they never wait."""

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from batch.clock import Clock
from batch.dispatch.request import Allowance, Cost, Measure

# Sums of intervals carry rounding errors: what is due within a microsecond is due now, and the pace is lowered by more.
_ROUNDING_SECONDS = 1e-6
_ROUNDING_MARGIN = 1 + 1e-7

# Without a stated burst a pace still catches up what late timers cost: this much of it, at least one request. Below
# `_CATCH_UP_FROM_RPM` that one request would cost more of the pace than a timer a few milliseconds late does.
_CATCH_UP_SECONDS = 0.05
_CATCH_UP_FROM_RPM = 150

# Share of a token limit that may be taken at once; the pace is lowered by as much, so that no minute holds more than
# the limit.
_TOKEN_BURST = 1 / 100

# How much two requests may come closer together on their way. A window is kept longer by this.
_JITTER_SECONDS = 0.012
# Of the window: beyond this, waiting costs more than a refusal now and then.
_MOST_JITTER = 0.02

Count = Callable[[Cost], float]
"""How much of a limit a cost takes."""


class Limiter(Protocol):
    """One limit of one endpoint."""

    measure: Measure
    """What it counts, so that the server's own word about it finds it."""

    def delay(self, cost: Cost) -> float:
        """Seconds until an attempt of this cost may start; 0.0 is now, infinity is when another one ends."""
        ...

    def take(self, cost: Cost) -> None:
        """Count an attempt that starts now. Only right after `delay` said 0.0."""
        ...

    def settle(self, taken: Cost, used: Cost) -> None:
        """The attempt ended: what it really used may differ from what it took."""
        ...

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        """The server said where it stands.

        Args:
            since: taken by attempts that started after the one that was answered; whether the server counted them
                already is not known.
            age: seconds since that attempt started. The answer's headers may be as old.
        """
        ...


class RequestPace:
    """Requests per minute by GCRA: one timestamp, equal to a token bucket of `burst` requests.

    With a stated burst the server is taken to allow it, on top of the pace: any window of `w` seconds sees at most
    `rpm * w / 60 + burst` requests. Without one, no minute holds more than `rpm` requests: the pace is lowered by
    the few that may catch up a late timer.
    """

    measure: Measure = "requests"

    def __init__(self, rpm: float, burst: int | None, clock: Clock) -> None:
        self._rpm = rpm
        self._burst = burst
        self._clock = clock
        self._next = clock()
        self.interval = self.tolerance = 0.0
        self._pace(rpm)

    def _pace(self, rpm: float) -> None:
        catch_up = max(1, math.floor(rpm / 60 * _CATCH_UP_SECONDS)) if rpm >= _CATCH_UP_FROM_RPM else 0
        pace = rpm if self._burst is not None else rpm - catch_up
        self.interval = 60.0 / pace * _ROUNDING_MARGIN
        self.tolerance = self.interval * ((self._burst if self._burst is not None else 1 + catch_up) - 1)

    def delay(self, cost: Cost) -> float:
        wait = self._next - self.tolerance - self._clock()
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        self._next = max(self._clock(), self._next) + self.interval * cost.requests

    def settle(self, taken: Cost, used: Cost) -> None:
        """A request counts from its start, whatever became of it."""

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        """Only ever slower than configured: what others take from the same limit is not ours to use."""
        if said.limit is not None and said.limit > 0:
            self._pace(min(self._rpm, said.limit))
        if said.remaining is not None:
            left = max(said.remaining, said.remaining + age / self.interval - since.requests)
            self._next = max(self._next, self._clock() + self.tolerance - (left - 1) * self.interval)


class TokenPace:
    """Tokens per minute by a token bucket, reserved before sending and, where `refunds` is set, corrected after.

    A request larger than the bucket waits until it is full and leaves it in debt, so it goes out, and those after it
    pay.
    """

    def __init__(
        self,
        tpm: float,
        clock: Clock,
        *,
        measure: Measure = "tokens",
        count: Count = lambda cost: cost.input + cost.expected,
        refunds: bool = True,
        whole_minute: bool = False,
    ) -> None:
        """
        Args:
            count: what a request takes.
            refunds: is what it did not use given back?
            whole_minute: a bucket that holds a minute's tokens, as servers have it; else one that is all but even.
        """
        self.measure: Measure = measure
        self._tpm = tpm
        self._count = count
        self._refunds = refunds
        self._burst = 1.0 if whole_minute else _TOKEN_BURST
        self._lowered = 0.0 if whole_minute else _TOKEN_BURST
        self._clock = clock
        self._as_of = clock()
        self.capacity = self.rate = 0.0
        self._pace(tpm)
        self._level = self.capacity

    def _pace(self, tpm: float) -> None:
        self.capacity = tpm * self._burst
        self.rate = tpm * (1 - self._lowered) / 60

    def delay(self, cost: Cost) -> float:
        self._refill()
        needed = min(float(self._count(cost)), self.capacity)
        wait = (needed - self._level) / self.rate
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        self._refill()
        self._level -= self._count(cost)

    def settle(self, taken: Cost, used: Cost) -> None:
        if self._refunds:
            self._refill()
            self._level = min(self.capacity, self._level + self._count(taken) - self._count(used))

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        self._refill()
        if said.limit is not None and said.limit > 0:
            self._pace(min(self._tpm, said.limit))
        if said.remaining is not None:
            left = max(said.remaining, said.remaining + age * self.rate - self._count(since))
            self._level = min(self._level, left, self.capacity)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._as_of) * self.rate)
        self._as_of = now


class Window:
    """At most `limit` in any `seconds`, wherever the server's own windows begin.

    What two requests may come closer together on their way is kept as a reserve, so that a server that counts from
    their arrival agrees. A cost beyond the limit goes out alone.
    """

    def __init__(
        self,
        limit: float,
        seconds: float,
        clock: Clock,
        *,
        measure: Measure = "requests",
        count: Count = lambda cost: cost.requests,
    ) -> None:
        self.measure: Measure = measure
        self.seconds = seconds + min(_JITTER_SECONDS, _MOST_JITTER * seconds)
        # What is left of a fraction is never reached: 1.5 requests a window are one.
        self._most = self._limit = max(1.0, math.floor(limit + 1e-9))
        self._per_minute = limit * 60 / seconds
        self._count = count
        self._clock = clock
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0
        self._closed_until = -math.inf

    def delay(self, cost: Cost) -> float:
        now = self._clock()
        self._forget(now)
        wait = self._closed_until - now
        # What must have left the window first; all of it, for a cost beyond the limit.
        excess = min(self._sum, self._sum + self._count(cost) - self._limit)
        for until, amount in self._taken:
            if excess <= 0:
                break
            excess -= amount
            wait = max(wait, until - now)
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        amount = self._count(cost)
        self._taken.append((self._clock() + self.seconds, amount))
        self._sum += amount

    def settle(self, taken: Cost, used: Cost) -> None:
        """Nothing comes back before the window ends."""

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        if said.limit is not None and said.limit > 0:
            # Headers speak of minutes, or of the window itself: a smaller share of the minute is a smaller limit.
            self._limit = max(1.0, min(self._most, math.floor(self._most * said.limit / self._per_minute)))
        if said.remaining is not None and said.remaining < 1 and said.reset_seconds is not None:
            self._closed_until = max(self._closed_until, self._clock() + said.reset_seconds - age)

    def _forget(self, now: float) -> None:
        while self._taken and self._taken[0][0] <= now + _ROUNDING_SECONDS:
            self._sum -= self._taken.popleft()[1]
        if not self._taken:
            self._sum = 0.0


class Concurrency:
    """Requests in flight: the configured ceiling, and beneath it what the server was found to bear.

    Additive increase, gentle decrease: a refusal takes a twentieth, once per round trip, and each full ceiling of good
    answers gives one back.
    """

    decrease = 0.95

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.allowed = float(ceiling)
        self.in_flight = 0
        self._lowered_at = -math.inf

    def delay(self) -> float:
        """0.0: another one may start; infinity: when one ends."""
        return 0.0 if self.in_flight < int(self.allowed) else math.inf

    def take(self) -> None:
        """An attempt starts."""
        self.in_flight += 1

    def give_back(self) -> None:
        """An attempt ended, however it did."""
        self.in_flight -= 1

    def answered(self, tokens: int, started: float, now: float) -> None:
        """A good answer of so many tokens came, to an attempt that started then."""
        if self.allowed < self.ceiling:
            self.allowed = min(float(self.ceiling), self.allowed + 1.0 / self.allowed)

    def refused(self, started: float, now: float) -> None:
        """The server asked us to slow down; what was sent before we last did says nothing new."""
        if started >= self._lowered_at:
            self.allowed = max(1.0, min(self.allowed, float(self.in_flight)) * self.decrease)
            self._lowered_at = now
