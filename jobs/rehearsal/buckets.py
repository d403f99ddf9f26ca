"""Exact token buckets.

They share no code with the client's limiters, so that a run against a rehearsal finds the faults of either.
"""

from collections.abc import Callable


class TokenBucket:
    """Holds up to `capacity` tokens, is refilled continuously at `per_minute`, and starts full.

    In any window of `t` seconds at most `capacity + per_minute * t / 60` tokens are taken. A refused request takes
    none. `now` returns monotonic seconds.
    """

    def __init__(self, per_minute: float, capacity: float, now: Callable[[], float]) -> None:
        self.per_minute = per_minute
        self.capacity = capacity
        self._per_second = per_minute / 60
        self._now = now
        self._level = capacity
        self._filled_at = now()

    def level(self) -> float:
        """Tokens in the bucket now."""
        at = self._now()
        self._level = min(self.capacity, self._level + (at - self._filled_at) * self._per_second)
        self._filled_at = at
        return self._level

    def wait(self, cost: float) -> float:
        """Seconds until `cost` tokens can be taken: 0.0 = now; infinite if the bucket can never hold so many."""
        if cost > self.capacity:
            return float("inf")
        missing = cost - self.level()
        # The rounding error of a refill over hours stays below this share of the capacity.
        return missing / self._per_second if missing > 1e-9 * self.capacity else 0.0

    def take(self, cost: float) -> None:
        """Take `cost` tokens; only after `wait` returned 0.0 for them."""
        self._level = self.level() - cost

    def give_back(self, tokens: float) -> None:
        """Return tokens that were taken and not used; those beyond the capacity are dropped."""
        self._level = min(self.capacity, self.level() + tokens)

    def seconds_to_full(self) -> float:
        """Seconds until the bucket is full again."""
        return (self.capacity - self.level()) / self._per_second
