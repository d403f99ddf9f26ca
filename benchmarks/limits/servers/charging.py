"""What each request takes from a server's limit, and when."""

import math
import time
from dataclasses import dataclass
from typing import Protocol, assert_never

from benchmarks.limits.servers.behaviour import BucketLimit, WindowLimit


@dataclass(frozen=True)
class RequestTokens:
    """How many tokens one request may use and does use."""

    prompt: int
    max_tokens: int
    """The most tokens that the request allows for the answer."""
    answer: int
    """Tokens that the answer has. A real server does not know them on arrival, so `admit` must not use them."""


class Charging(Protocol):
    """A limit that requests are charged to."""

    def admit(self, tokens: RequestTokens) -> bool:
        """Charge what is due on arrival; return `False`, and charge nothing, if the limit has no room."""
        ...

    def settle(self, tokens: RequestTokens) -> int:
        """Charge or refund what is due when the answer ends; return what the request was charged in all."""
        ...

    def reset_seconds(self) -> float:
        """How long a refused client has to wait."""
        ...


class NoLimit:
    """Admits every request, and counts its answer tokens as charged."""

    def admit(self, tokens: RequestTokens) -> bool:
        return True

    def settle(self, tokens: RequestTokens) -> int:
        return tokens.answer

    def reset_seconds(self) -> float:
        return 0.0


class WindowCharging:
    """Charges requests to a window of the package `limits`, kept in memory."""

    def __init__(self, spec: WindowLimit) -> None:
        import limits
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        kinds = {"fixed": FixedWindowRateLimiter, "moving": MovingWindowRateLimiter}
        self._limiter = kinds[spec.strategy](MemoryStorage())
        self._item = limits.RateLimitItemPerSecond(spec.amount, spec.seconds)
        self._charge = spec.charge

    def admit(self, tokens: RequestTokens) -> bool:
        cost = self._charged_on_arrival(tokens)
        # `hit` counts in a fixed window even if it refuses, so `test` comes first.
        free = self._limiter.test(self._item, cost=max(1, cost))
        return bool(free and (not cost or self._limiter.hit(self._item, cost=cost)))

    def settle(self, tokens: RequestTokens) -> int:
        if self._charge != "used":
            return self._charged_on_arrival(tokens)
        used = tokens.prompt + tokens.answer
        self._limiter.hit(self._item, cost=used)
        return used

    def reset_seconds(self) -> float:
        reset_at: float = self._limiter.get_window_stats(self._item).reset_time
        return max(0.0, reset_at - time.time())

    def _charged_on_arrival(self, tokens: RequestTokens) -> int:
        match self._charge:
            case "request":
                return 1
            case "reserved":
                return tokens.prompt + tokens.max_tokens
            case "used":
                return 0
            case _:
                assert_never(self._charge)


class _Bucket:
    """A full token bucket of a minute's worth."""

    def __init__(self, per_minute: float) -> None:
        self.capacity = self.level = per_minute
        self._rate = per_minute / 60
        self._as_of = time.monotonic()

    def refill(self) -> None:
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self._as_of) * self._rate)
        self._as_of = now

    def seconds_until(self, amount: float) -> float:
        return max(0.0, (amount - self.level) / self._rate)


class BucketCharging:
    """Charges prompt tokens to one bucket and answer tokens to another; both refill evenly."""

    def __init__(self, spec: BucketLimit) -> None:
        self._input = _Bucket(spec.input_tpm)
        self._output = _Bucket(spec.output_tpm)
        self._retry_seconds: float = 0.0

    def admit(self, tokens: RequestTokens) -> bool:
        self._input.refill()
        self._output.refill()
        self._retry_seconds = max(
            self._input.seconds_until(tokens.prompt), self._output.seconds_until(tokens.max_tokens)
        )
        if self._retry_seconds > 0:
            return False
        self._input.level -= tokens.prompt
        self._output.level -= tokens.max_tokens
        return True

    def settle(self, tokens: RequestTokens) -> int:
        self._output.refill()
        self._output.level = min(self._output.capacity, self._output.level + tokens.max_tokens - tokens.answer)
        return tokens.answer

    def reset_seconds(self) -> float:
        return self._retry_seconds


def build_charging(spec: WindowLimit | BucketLimit | None) -> Charging:
    """Build the limit that a server's behaviour asks for."""
    match spec:
        case None:
            return NoLimit()
        case WindowLimit():
            return WindowCharging(spec)
        case BucketLimit():
            return BucketCharging(spec)
        case _:
            assert_never(spec)


def retry_after_header(seconds: float) -> str:
    """The value of a Retry-After header: whole seconds, rounded up, at least one."""
    return str(max(1, math.ceil(seconds)))
