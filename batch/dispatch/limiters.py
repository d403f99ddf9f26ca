"""What an endpoint allows, held on our side. Limiters decide; they never wait."""

import math
from typing import Protocol

from batch.clock import Clock
from batch.dispatch.request import Cost
from schemas.endpoints import LimitsSpec

# Sums of intervals carry rounding errors: what is due within a microsecond is due now, and the pace is lowered by more.
_ROUNDING_SECONDS = 1e-6
_ROUNDING_MARGIN = 1 + 1e-7

# Without a stated burst a pace still catches up what late timers cost: this much of it, at least one request. Below
# `_CATCH_UP_FROM_RPM` that one request would cost more of the pace than a timer a few milliseconds late does.
_CATCH_UP_SECONDS = 0.05
_CATCH_UP_FROM_RPM = 150

# Share of a token limit that may be taken at once; the pace is lowered by as much, so that no minute holds more than
# the limit.
_TOKEN_BURST = 1 / 60


class Limiter(Protocol):
    """One limit of one endpoint."""

    def delay(self, cost: Cost) -> float:
        """Seconds until an attempt of this cost may start; 0.0 is now, infinity is when another one ends."""
        ...

    def take(self, cost: Cost) -> None:
        """Count an attempt that starts now. Only right after `delay` said 0.0."""
        ...

    def settle(self, taken: Cost, used: Cost) -> None:
        """The attempt ended: what it really used may differ from what it took."""
        ...


class RequestPace:
    """Requests per minute by GCRA: one timestamp, equal to a token bucket of `burst` requests.

    With a stated burst the server is taken to allow it, on top of the pace: any window of `w` seconds sees at most
    `rpm * w / 60 + burst` requests. Without one, no minute holds more than `rpm` requests: the pace is lowered by
    the few that may catch up a late timer.
    """

    def __init__(self, rpm: float, burst: int | None, clock: Clock) -> None:
        catch_up = max(1, math.floor(rpm / 60 * _CATCH_UP_SECONDS)) if rpm >= _CATCH_UP_FROM_RPM else 0
        pace = rpm if burst is not None else rpm - catch_up
        self.interval = 60.0 / pace * _ROUNDING_MARGIN
        self.tolerance = self.interval * ((burst if burst is not None else 1 + catch_up) - 1)
        self._clock = clock
        self._next = clock()

    def delay(self, cost: Cost) -> float:
        wait = self._next - self.tolerance - self._clock()
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, cost: Cost) -> None:
        self._next = max(self._clock(), self._next) + self.interval * cost.requests

    def settle(self, taken: Cost, used: Cost) -> None:
        """A request counts from its start, whatever became of it."""


class TokenPace:
    """Tokens per minute by a token bucket, reserved before sending and corrected after.

    A request larger than the bucket waits until it is full and leaves it in debt, so it goes out, and those after it
    pay.
    """

    def __init__(self, tpm: float, clock: Clock) -> None:
        self.capacity = tpm * _TOKEN_BURST
        self.rate = (tpm - self.capacity) / 60
        self._clock = clock
        self._level = self.capacity
        self._as_of = clock()

    def delay(self, cost: Cost) -> float:
        self._refill()
        needed = min(float(cost.tokens), self.capacity)
        return max(0.0, (needed - self._level) / self.rate)

    def take(self, cost: Cost) -> None:
        self._refill()
        self._level -= cost.tokens

    def settle(self, taken: Cost, used: Cost) -> None:
        self._refill()
        self._level = min(self.capacity, self._level + taken.tokens - used.tokens)

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._as_of) * self.rate)
        self._as_of = now


class Concurrency:
    """Requests in flight: the configured ceiling, and beneath it what the server was found to bear.

    Additive increase, multiplicative decrease: a refusal lowers the ceiling once per round trip, and each full
    ceiling of good answers raises it by one.
    """

    decrease = 0.7

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.allowed = float(ceiling)
        self.in_flight = 0
        self._to_ignore = 0

    def delay(self, cost: Cost) -> float:
        return 0.0 if self.in_flight < int(self.allowed) else math.inf

    def take(self, cost: Cost) -> None:
        self.in_flight += 1

    def settle(self, taken: Cost, used: Cost) -> None:
        self.in_flight -= 1
        self._to_ignore = max(0, self._to_ignore - 1)

    def answered(self) -> None:
        """A good answer came."""
        if self.allowed < self.ceiling:
            self.allowed = min(float(self.ceiling), self.allowed + 1.0 / self.allowed)

    def refused(self) -> None:
        """The server asked us to slow down; the others of the same round trip say nothing new."""
        if self._to_ignore == 0:
            self.allowed = max(1.0, min(self.allowed, float(self.in_flight)) * self.decrease)
            self._to_ignore = self.in_flight


def build_limiters(spec: LimitsSpec, clock: Clock) -> tuple[Concurrency, tuple[Limiter, ...]]:
    """The concurrency of an endpoint, and its other limiters, all to be asked."""
    limiters: list[Limiter] = []
    if spec.rpm is not None:
        limiters.append(RequestPace(spec.rpm, spec.burst, clock))
    if spec.tpm is not None:
        limiters.append(TokenPace(spec.tpm, clock))
    return Concurrency(spec.max_in_flight), tuple(limiters)
