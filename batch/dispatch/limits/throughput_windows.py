"""Measurements for `AdaptiveConcurrency`: throughput at a number of requests in flight, and refused numbers."""

import math

# A refusal lowers the requests in flight to this share. The refused number is not tried again for
# `_FIRST_CLOSED_SECONDS`, which doubles with repetition.
DECREASE = 0.95
_FIRST_CLOSED_SECONDS = 2.0
_LONGEST_CLOSED_SECONDS = 60.0

# A refusal at a number of requests that the server has answered before is attributed to another limit, until there were
# `_STRIKES` of them; each answer takes away 1/20 of the count.
_STRIKES = 8.0
_STRIKE_ANSWERS = 20
# The number that the server has answered is forgotten over about this many answers.
_BORNE_ANSWERS = 1000


class ThroughputWindow:
    """Throughput measured over answers at one number of requests in flight.

    Throughput by Little's law: requests in flight, times the tokens per second of each. A server that shares itself
    between requests gives all of them the same speed, so a few answers are enough, whatever their lengths. Tokens
    counted per second of the clock would vary with the answers that happen to end.
    """

    def __init__(self) -> None:
        self.answers = 0
        self._tokens = self._levels = self._full = 0
        self._seconds = self._tokens_squared = self._seconds_squared = self._product = 0.0

    def add(self, tokens: int, seconds: float, level: int, *, full: bool) -> None:
        """Add an answer, and how many requests were in flight with it.

        Args:
            full: were all slots taken?
        """
        # An answer without a token count counts as one token.
        tokens = max(1, tokens)
        self.answers += 1
        self._tokens += tokens
        self._seconds += seconds
        self._levels += level
        self._full += full
        self._tokens_squared += tokens * tokens
        self._seconds_squared += seconds * seconds
        self._product += tokens * seconds

    @property
    def full(self) -> float:
        """Share of the answers that came while every slot was taken."""
        return self._full / self.answers

    @property
    def speed(self) -> float:
        """Tokens per second of each request."""
        return self._tokens / max(self._seconds, 1e-9)

    @property
    def latency(self) -> float:
        """Mean seconds of an answer."""
        return self._seconds / self.answers

    @property
    def throughput(self) -> float:
        """Tokens per second of all requests in flight together."""
        return self.speed * self._levels / self.answers

    @property
    def error(self) -> float:
        """Relative standard error of the throughput, as of a ratio of two means."""
        speed = self.speed
        squares = self._tokens_squared - 2 * speed * self._product + speed * speed * self._seconds_squared
        return math.sqrt(max(0.0, squares)) / self._tokens


class CapacityHistory:
    """The numbers of requests in flight that a server has answered ("borne") and refused.

    A refusal may come from a limit on requests in flight or from another one, as a rate. It is attributed to the former
    if more requests were in flight than the server has ever borne.
    """

    def __init__(self) -> None:
        self.level = math.inf
        """Requests in flight at the last refusal that counted; infinity: there was none, or that number was borne
        since.
        """
        self.lowered_at = -math.inf
        """When the last refusal came that counted."""
        self._closed_until = -math.inf
        self._closed_seconds = _FIRST_CLOSED_SECONDS
        self._borne = 0.0
        self._seen = 0
        self._seen_at = -math.inf
        self._strikes = 0.0

    def answered(self, level: int, started: float, now: float) -> None:
        """An attempt was answered.

        A number in flight is borne once an attempt that started after it was seen is answered.
        """
        self._strikes -= self._strikes / _STRIKE_ANSWERS
        self._borne -= max(0.0, self._borne - level) / _BORNE_ANSWERS
        if level > self._seen:
            self._seen, self._seen_at = level, now
        elif started >= self._seen_at:
            self._borne = max(self._borne, self._seen)
            self._seen, self._seen_at = level, now

    @property
    def disproved(self) -> bool:
        """Was the refused number borne after all?"""
        return self._borne >= self.level

    def counts(self, level: int) -> bool:
        """Does a refusal at this number of requests in flight come from a limit on them?"""
        self._seen = min(self._seen, level - 1)
        if level <= self._borne:
            self._strikes += 1
            if self._strikes < _STRIKES:
                return False
        self._borne = min(self._borne, level - 1.0)
        return True

    def close(self, level: int, now: float) -> None:
        """Keep below this number for a while, which is longer if it was refused before."""
        if level >= self.level * DECREASE:
            self._closed_seconds = min(_LONGEST_CLOSED_SECONDS, self._closed_seconds * 2)
        self.lowered_at = now
        self._closed_until = now + self._closed_seconds

    def may_try(self, now: float) -> bool:
        """May the refused number be tried again?"""
        return self.level < math.inf and now >= self._closed_until

    def try_again(self) -> None:
        """The refused number is tried again; it is not exceeded until it is refused or borne."""
        self._closed_until = math.inf

    def most(self, now: float) -> float:
        """The most requests that may be in flight: fewer than the refused number while that is not to be tried."""
        return max(1.0, self.level - 1.0) if now < self._closed_until else math.inf

    def forget(self) -> None:
        """Forget the refused number: the refusal came from another limit."""
        self.level = math.inf
        self._closed_until = -math.inf
        self._closed_seconds = _FIRST_CLOSED_SECONDS
