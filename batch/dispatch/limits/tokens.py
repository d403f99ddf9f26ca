"""Limits on tokens: reserved before sending, and corrected after the answer if the server does so too."""

import math
from collections import deque
from collections.abc import Callable

from batch.clock import Clock
from batch.dispatch.limits.requests import ROUNDING_SECONDS, jitter
from batch.dispatch.request import LimitCost
from batch.limits import Allowance, Measure

# Tokens that may be taken at once, in seconds of the limit. With fewer, rows of different lengths and a second limit on
# requests would leave some unused. No minute holds more than the limit all the same, since a window sums up what was
# taken.
_TOKEN_BURST_SECONDS = 3.0
# The share of the limit that is used: servers that charge an answer when it ends see answers bunch up a little.
_TOKEN_SHARE = 0.99
# A window of tokens is summed up in this many slots of time.
_SLOTS = 240

Count = Callable[[LimitCost], float]
"""How much of a limit an attempt of this cost takes."""


class TokenPace:
    """Tokens per minute by a token bucket, reserved before sending and, where `refunds` is set, corrected after.

    No window holds more than its share of the limit, whatever the bucket has saved. A request larger than the bucket
    waits until it is full and leaves it in debt, so it goes out, and those after it pay.
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
        window: float = 60.0,
    ) -> None:
        """
        Args:
            count: the tokens that an attempt takes.
            refunds: are the tokens that the answer did not use given back?
            window: seconds over which the server counts.
        """
        self.measure: Measure = measure
        self._tpm = tpm
        self._count = count
        self._refunds = refunds
        self._clock = clock
        self._bucket = _Bucket(0.0, 1.0, clock())
        self._window = _Slots(window)
        self._minutes = window / 60
        self._pace(tpm)
        self._bucket.fill()

    def _pace(self, tpm: float) -> None:
        held = tpm * _TOKEN_SHARE
        self._limit = held * self._minutes
        self._bucket.change(min(self._limit, held * _TOKEN_BURST_SECONDS / 60), held / 60, self._clock())

    def delay(self, cost: LimitCost) -> float:
        now = self._clock()
        needed = self._count(cost)
        wait = max(self._bucket.delay(needed, now), self._window.delay(self._limit - needed, now))
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        now = self._clock()
        tokens = self._count(cost)
        self._bucket.take(tokens, now)
        self._window.add(tokens, now, now)

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        if self._refunds:
            now = self._clock()
            more = self._count(used) - self._count(taken)
            self._bucket.take(more, now)
            self._window.add(more, now - age, now)

    def seconds(self, cost: LimitCost) -> float:
        return self._count(cost) / self._bucket.rate

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
        if said.limit is not None and said.limit > 0:
            self._pace(min(self._tpm, said.limit))
        if said.remaining is not None:
            self._bucket.clamp(said.remaining, self._count(since), age, self._clock())


class TokenReserve:
    """Mirrors the bucket of a server that holds a minute's tokens, reserves the most an answer may have, and refunds.

    It bounds the requests in flight rather than the rate: many long answers at once would empty it.
    """

    may_owe = False

    def __init__(self, tpm: float, clock: Clock, *, measure: Measure, count: Count) -> None:
        self.measure: Measure = measure
        self._tpm = tpm
        self._count = count
        self._clock = clock
        self._bucket = _Bucket(tpm, tpm / 60, clock())

    def delay(self, cost: LimitCost) -> float:
        wait = self._bucket.delay(self._count(cost), self._clock())
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        self._bucket.take(self._count(cost), self._clock())

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        self._bucket.take(self._count(used) - self._count(taken), self._clock())

    def seconds(self, cost: LimitCost) -> float:
        return 0.0

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
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
        """Seconds until the bucket holds the amount, or is full."""
        self._refill(now)
        return (min(amount, self.capacity) - self._level) / self.rate

    def take(self, amount: float, now: float) -> None:
        """Take the amount out; a negative amount is given back."""
        self._refill(now)
        self._level = min(self.capacity, self._level - amount)

    def fill(self) -> None:
        """Fill the bucket."""
        self._level = self.capacity

    def change(self, capacity: float, rate: float, now: float) -> None:
        """Change capacity and refill rate from now on."""
        self._refill(now)
        self.capacity, self.rate = capacity, rate
        self._level = min(self._level, capacity)

    def clamp(self, remaining: float, since: float, age: float, now: float) -> None:
        """Lower the level to what the server states to have left.

        The request of that answer started `age` seconds ago, and `since` was taken after it. If the server wrote its
        headers when the request began, its bucket has refilled since, and attempts since have been taken from it; if it
        wrote them at the end, neither. The higher of the two levels counts, since it cannot be below the truth.
        """
        self._refill(now)
        self._level = min(self._level, max(remaining, remaining + age * self.rate - since))

    def _refill(self, now: float) -> None:
        self._level = min(self.capacity, self._level + (now - self._as_of) * self.rate)
        self._as_of = now


class _Slots:
    """What was taken within a sliding window, summed up by slots of time."""

    def __init__(self, seconds: float) -> None:
        self._slot_seconds = seconds / _SLOTS
        self._seconds = seconds + jitter(seconds)
        self._slots: deque[int] = deque()
        self._amounts: dict[int, float] = {}
        self._sum = 0.0

    def delay(self, room: float, now: float) -> float:
        """Seconds until the window holds no more than `room`; 0.0 if it is empty."""
        self._forget(now)
        excess = self._sum - max(0.0, room)
        until = now
        for slot in self._slots:
            if excess <= 0:
                break
            excess -= self._amounts[slot]
            until = self._end(slot)
        return until - now

    def add(self, amount: float, at: float, now: float) -> None:
        """Add tokens (or, if negative, refund them) in the slot of time `at`; ignored if that slot has left the
        window.
        """
        self._forget(now)
        slot = math.floor(at / self._slot_seconds)
        if slot in self._amounts:
            self._amounts[slot] += amount
        elif not self._slots or slot > self._slots[-1]:
            self._slots.append(slot)
            self._amounts[slot] = amount
        else:
            return
        self._sum += amount

    def _end(self, slot: int) -> float:
        return (slot + 1) * self._slot_seconds + self._seconds

    def _forget(self, now: float) -> None:
        while self._slots and self._end(self._slots[0]) <= now + ROUNDING_SECONDS:
            self._sum -= self._amounts.pop(self._slots.popleft())
        if not self._slots:
            self._sum = 0.0


class TokenWindow:
    """Mirrors the window of a server that reserves the most an answer may have, and gives back what it did not use.

    Like `TokenReserve` it bounds the requests in flight rather than the rate. An attempt larger than the limit is sent
    alone.
    """

    measure: Measure = "tokens"
    may_owe = False

    def __init__(self, tpm: float, seconds: float, clock: Clock, *, count: Count) -> None:
        self._tpm = tpm
        self._minutes = seconds / 60
        self._limit = tpm * self._minutes
        self._count = count
        self._clock = clock
        self._window = _Slots(seconds)
        self._closed_until = -math.inf

    def delay(self, cost: LimitCost) -> float:
        now = self._clock()
        wait = max(self._closed_until - now, self._window.delay(self._limit - self._count(cost), now))
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        now = self._clock()
        self._window.add(self._count(cost), now, now)

    def settle(self, taken: LimitCost, used: LimitCost, age: float) -> None:
        now = self._clock()
        self._window.add(self._count(used) - self._count(taken), now - age, now)

    def seconds(self, cost: LimitCost) -> float:
        return 0.0

    def correct(self, said: Allowance, since: LimitCost, age: float) -> None:
        if said.limit is not None and said.limit > 0:
            self._limit = min(self._tpm, said.limit) * self._minutes
        if said.remaining is not None and said.remaining < 1 and said.reset_seconds is not None:
            self._closed_until = max(self._closed_until, self._clock() + said.reset_seconds - age)
