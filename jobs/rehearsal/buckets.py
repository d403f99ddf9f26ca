"""Exact token buckets, written without the client's limiter in mind, so that each can catch the other out."""

from collections.abc import Callable


class TokenBucket:
    """Holds up to `capacity` tokens, refilled continuously at `per_minute`; full at first.

    In any window of `t` seconds at most `capacity + per_minute * t / 60` tokens leave it. Asking in vain
    costs nothing. `now` returns monotonic seconds.
    """

    def __init__(self, per_minute: float, capacity: float, now: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.capacity = capacity
        self._per_second = per_minute / 60
        self._now = now
        self._level = capacity
        self._filled_at = now()

    def level(self) -> float:
        """Tokens in it."""
        at = self._now()
        self._level = min(self.capacity, self._level + (at - self._filled_at) * self._per_second)
        self._filled_at = at
        return self._level

    def wait(self, cost: float) -> float:
        """Seconds until `cost` tokens are there: 0.0 = now. Infinite when the bucket is too small for it."""
        if cost > self.capacity:
            return float("inf")
        missing = cost - self.level()
        # The rounding error of a refill over hours stays below this; a token is the unit of a limit.
        return missing / self._per_second if missing > 1e-9 * self.capacity else 0.0

    def take(self, cost: float) -> None:
        """Remove `cost` tokens, which `wait` said are there."""
        self._level = self.level() - cost

    def give_back(self, tokens: float) -> None:
        """Return tokens that were taken and not used; what does not fit is lost."""
        self._level = min(self.capacity, self.level() + tokens)

    def seconds_to_full(self) -> float:
        """Seconds until it is full again."""
        return (self.capacity - self.level()) / self._per_second
