"""What requests take from a server's limit."""

import math
import time
from dataclasses import dataclass
from typing import Protocol, assert_never

from benchmarks.limits.servers.behaviour import BucketLimit, WindowLimit


@dataclass(frozen=True)
class Tokens:
    """Of one request."""

    prompt: int
    most: int
    """`max_tokens`."""
    answer: int
    """Those that the answer has, which is not known on arrival."""


class Charging(Protocol):
    """One limit."""

    def admit(self, tokens: Tokens) -> bool:
        """Take what is taken on arrival; `False`: there is no room, and nothing was taken."""
        ...

    def end(self, tokens: Tokens) -> int:
        """The answer is given: what the request was charged in all."""
        ...

    def reset_seconds(self) -> float:
        """What a refused client is told to wait."""
        ...


class Unlimited:
    """Everything is let in, and its answer counted."""

    def admit(self, tokens: Tokens) -> bool:
        return True

    def end(self, tokens: Tokens) -> int:
        return tokens.answer

    def reset_seconds(self) -> float:
        return 0.0


class Windowed:
    """Windows of the package `limits`, kept in memory."""

    def __init__(self, spec: WindowLimit) -> None:
        import limits
        from limits.storage import MemoryStorage
        from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

        kinds = {"fixed": FixedWindowRateLimiter, "moving": MovingWindowRateLimiter}
        self._limiter = kinds[spec.strategy](MemoryStorage())
        self._item = limits.RateLimitItemPerSecond(spec.amount, spec.seconds)
        self._charge = spec.charge

    def admit(self, tokens: Tokens) -> bool:
        cost = self._on_arrival(tokens)
        # A refused hit would count in a fixed window.
        free = self._limiter.test(self._item, cost=max(1, cost))
        return bool(free and (not cost or self._limiter.hit(self._item, cost=cost)))

    def end(self, tokens: Tokens) -> int:
        if self._charge != "used":
            return self._on_arrival(tokens)
        used = tokens.prompt + tokens.answer
        self._limiter.hit(self._item, cost=used)
        return used

    def reset_seconds(self) -> float:
        reset_at: float = self._limiter.get_window_stats(self._item).reset_time
        return max(0.0, reset_at - time.time())

    def _on_arrival(self, tokens: Tokens) -> int:
        match self._charge:
            case "request":
                return 1
            case "reserved":
                return tokens.prompt + tokens.most
            case "used":
                return 0
            case _:
                assert_never(self._charge)


class _Bucket:
    def __init__(self, per_minute: float) -> None:
        self.capacity = self.level = per_minute
        self._rate = per_minute / 60
        self._as_of = time.monotonic()

    def refill(self) -> None:
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self._as_of) * self._rate)
        self._as_of = now

    def wait(self, amount: float) -> float:
        return max(0.0, (amount - self.level) / self._rate)


class Buckets:
    """Input and output apart, refilled evenly."""

    def __init__(self, spec: BucketLimit) -> None:
        self._input = _Bucket(spec.input_tpm)
        self._output = _Bucket(spec.output_tpm)
        self._refused: float = 0.0

    def admit(self, tokens: Tokens) -> bool:
        self._input.refill()
        self._output.refill()
        self._refused = max(self._input.wait(tokens.prompt), self._output.wait(tokens.most))
        if self._refused > 0:
            return False
        self._input.level -= tokens.prompt
        self._output.level -= tokens.most
        return True

    def end(self, tokens: Tokens) -> int:
        self._output.refill()
        self._output.level = min(self._output.capacity, self._output.level + tokens.most - tokens.answer)
        return tokens.answer

    def reset_seconds(self) -> float:
        return self._refused


def build_charging(spec: WindowLimit | BucketLimit | None) -> Charging:
    """The limit that a server was told to hold."""
    match spec:
        case None:
            return Unlimited()
        case WindowLimit():
            return Windowed(spec)
        case BucketLimit():
            return Buckets(spec)
        case _:
            assert_never(spec)


def retry_after(seconds: float) -> str:
    """As servers tell it: in whole seconds, at least one."""
    return str(max(1, math.ceil(seconds)))
