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

# Tokens that may be taken at once: so many seconds of the limit, or rows of different lengths and a second limit on
# requests would leave some unused. No minute holds more than the limit all the same: minutes are summed up by slots.
_TOKEN_BURST_SECONDS = 3.0
_SLOT_SECONDS = 0.25

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

    may_owe: bool
    """May an attempt that is larger than what there is go out, if those after it wait for longer?"""

    def delay(self, cost: Cost) -> float:
        """Seconds until an attempt of this cost may start; 0.0 is now, infinity is when another one ends."""
        ...

    def take(self, cost: Cost) -> None:
        """Count an attempt that starts now. Only right after `delay` said 0.0."""
        ...

    def settle(self, taken: Cost, used: Cost) -> None:
        """The attempt ended: what it really used may differ from what it took."""
        ...

    def seconds(self, cost: Cost) -> float:
        """Seconds of the limit's rate that an attempt of this cost takes."""
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
    may_owe = False

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

    def seconds(self, cost: Cost) -> float:
        return self.interval * cost.requests

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        """Only ever slower than configured: what others take from the same limit is not ours to use."""
        if said.limit is not None and said.limit > 0:
            self._pace(min(self._rpm, said.limit))
        if said.remaining is not None:
            left = max(said.remaining, said.remaining + age / self.interval - since.requests)
            self._next = max(self._next, self._clock() + self.tolerance - (left - 1) * self.interval)


class TokenPace:
    """Tokens per minute by a token bucket, reserved before sending and, where `refunds` is set, corrected after.

    No minute holds more than the limit, whatever the bucket has saved. A request larger than the bucket waits until
    it is full and leaves it in debt, so it goes out, and those after it pay.
    """

    may_owe = True

    def __init__(
        self,
        tpm: float,
        clock: Clock,
        *,
        measure: Measure = "tokens",
        count: Count = lambda cost: cost.input + cost.expected,
        refunds: bool = True,
    ) -> None:
        """
        Args:
            count: what a request takes.
            refunds: is what it did not use given back?
        """
        self.measure: Measure = measure
        self._tpm = self._limit = tpm
        self._count = count
        self._refunds = refunds
        self._clock = clock
        self._bucket = _Bucket(tpm * _TOKEN_BURST_SECONDS / 60, tpm / 60, clock())
        self._minute = _Minute()

    def delay(self, cost: Cost) -> float:
        now = self._clock()
        needed = self._count(cost)
        wait = max(self._bucket.delay(needed, now), self._minute.delay(self._limit - needed, now))
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        self._add(self._count(cost))

    def settle(self, taken: Cost, used: Cost) -> None:
        if self._refunds:
            self._add(self._count(used) - self._count(taken))

    def seconds(self, cost: Cost) -> float:
        return self._count(cost) / self._bucket.rate

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        now = self._clock()
        if said.limit is not None and said.limit > 0:
            self._limit = min(self._tpm, said.limit)
            self._bucket.change(self._limit * _TOKEN_BURST_SECONDS / 60, self._limit / 60, now)
        if said.remaining is not None:
            self._bucket.clamp(said.remaining, self._count(since), age, now)

    def _add(self, tokens: float) -> None:
        now = self._clock()
        self._bucket.take(tokens, now)
        self._minute.add(tokens, now)


class TokenReserve:
    """The bucket of a server that holds a minute's tokens, reserves the most an answer may have, and refunds.

    It bounds what is under way rather than the rate: many long answers at once would empty it.
    """

    may_owe = False

    def __init__(self, tpm: float, clock: Clock, *, measure: Measure, count: Count) -> None:
        self.measure: Measure = measure
        self._tpm = tpm
        self._count = count
        self._clock = clock
        self._bucket = _Bucket(tpm, tpm / 60, clock())

    def delay(self, cost: Cost) -> float:
        wait = self._bucket.delay(self._count(cost), self._clock())
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        self._bucket.take(self._count(cost), self._clock())

    def settle(self, taken: Cost, used: Cost) -> None:
        self._bucket.take(self._count(used) - self._count(taken), self._clock())

    def seconds(self, cost: Cost) -> float:
        return 0.0

    def correct(self, said: Allowance, since: Cost, age: float) -> None:
        now = self._clock()
        if said.limit is not None and said.limit > 0:
            limit = min(self._tpm, said.limit)
            self._bucket.change(limit, limit / 60, now)
        if said.remaining is not None:
            self._bucket.clamp(said.remaining, self._count(since), age, now)


class _Bucket:
    """A token bucket that may be in debt."""

    def __init__(self, capacity: float, rate: float, now: float) -> None:
        self.capacity = self._level = capacity
        self.rate = rate
        self._as_of = now

    def delay(self, amount: float, now: float) -> float:
        """Seconds until it holds the amount, or is full."""
        self._refill(now)
        return (min(amount, self.capacity) - self._level) / self.rate

    def take(self, amount: float, now: float) -> None:
        """Take it, or give it back where it is negative."""
        self._refill(now)
        self._level = min(self.capacity, self._level - amount)

    def change(self, capacity: float, rate: float, now: float) -> None:
        """Hold and refill something else from now on."""
        self._refill(now)
        self.capacity, self.rate = capacity, rate
        self._level = min(self._level, capacity)

    def clamp(self, remaining: float, since: float, age: float, now: float) -> None:
        """The server had so much left, in an answer whose request is so old; `since` was taken after that one.

        Where the answer was written when it began, the server has refilled since, and has counted what was taken
        since; where it was written at its end, neither. The kinder reading counts: it cannot be below the truth.
        """
        self._refill(now)
        self._level = min(self._level, max(remaining, remaining + age * self.rate - since))

    def _refill(self, now: float) -> None:
        self._level = min(self.capacity, self._level + (now - self._as_of) * self.rate)
        self._as_of = now


class _Minute:
    """What was taken in the last minute, by slots of a quarter of a second."""

    def __init__(self) -> None:
        self._slots: deque[list[float]] = deque()
        self._sum = 0.0

    def delay(self, room: float, now: float) -> float:
        """Seconds until no more than `room` was taken in the minute before; at once where nothing was."""
        self._forget(now)
        excess = self._sum - max(0.0, room)
        if excess <= 0:
            return 0.0
        until = now
        for ends, amount in self._slots:
            excess -= amount
            until = ends
            if excess <= 0:
                break
        return until - now

    def add(self, amount: float, now: float) -> None:
        """Taken now, or given back."""
        ends = (math.floor(now / _SLOT_SECONDS) + 1) * _SLOT_SECONDS + 60.0
        if self._slots and self._slots[-1][0] == ends:
            self._slots[-1][1] += amount
        else:
            self._slots.append([ends, amount])
        self._sum += amount

    def _forget(self, now: float) -> None:
        while self._slots and self._slots[0][0] <= now + _ROUNDING_SECONDS:
            self._sum -= self._slots.popleft()[1]
        if not self._slots:
            self._sum = 0.0


class Window:
    """At most `limit` in any `seconds`, wherever the server's own windows begin.

    What two requests may come closer together on their way is kept as a reserve, so that a server that counts from
    their arrival agrees. A cost beyond the limit goes out alone.
    """

    may_owe = False

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
        self.seconds_long = seconds + min(_JITTER_SECONDS, _MOST_JITTER * seconds)
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
        self._taken.append((self._clock() + self.seconds_long, amount))
        self._sum += amount

    def settle(self, taken: Cost, used: Cost) -> None:
        """Nothing comes back before the window ends."""

    def seconds(self, cost: Cost) -> float:
        return self._count(cost) / self._limit * self.seconds_long

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

    def refused(self, started: float, now: float) -> bool:
        """The server asked us to slow down; what was sent before we last did says nothing new.

        Returns:
            Is the refusal explained, so that no other limit need be the reason? Never: this one is configured.
        """
        if started >= self._lowered_at:
            self.allowed = max(1.0, min(self.allowed, float(self.in_flight)) * self.decrease)
            self._lowered_at = now
        return False
