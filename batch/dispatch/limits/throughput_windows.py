"""What answers and refusals say about how many requests a server bears at once."""

import math

# A refusal takes a twentieth of what was in flight. The refused level is not tried again for so long, doubling.
DECREASE = 0.95
_FIRST_CLOSED_SECONDS = 2.0
_LONGEST_CLOSED_SECONDS = 60.0

# A refusal at a level that was borne is another limit's, until so many of them have come; an answer takes away 1/20.
_STRIKES = 8.0
_STRIKE_ANSWERS = 20
# What was borne is forgotten over so many answers.
_BORNE_ANSWERS = 1000


class ThroughputWindow:
    """Answers at one number of requests in flight.

    Throughput by Little's law: requests in flight, times the tokens per second of each. A server that shares itself
    between requests gives all of them the same speed, so a few answers tell it whatever their lengths, where tokens
    counted by the clock would vary with those that happen to end.
    """

    def __init__(self) -> None:
        self.answers = 0
        self._tokens = self._levels = self._full = 0
        self._seconds = self._tokens_squared = self._seconds_squared = self._product = 0.0

    def add(self, tokens: int, seconds: float, level: int, *, full: bool) -> None:
        """An answer, and how many were in flight with it."""
        # Answers that do not tell their tokens are counted instead.
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
        """Share of the answers that found every slot taken."""
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
        """Tokens per second, of all in flight together."""
        return self.speed * self._levels / self.answers

    @property
    def error(self) -> float:
        """Standard error of the throughput, relative to it: that of a ratio of two means."""
        speed = self.speed
        squares = self._tokens_squared - 2 * speed * self._product + speed * speed * self._seconds_squared
        return math.sqrt(max(0.0, squares)) / self._tokens


class CapacityHistory:
    """What a server was seen to bear, and what it refused.

    A refusal may be this limit's or another's: a pace that was exceeded, say. It is this one's where more were in
    flight than were ever borne.
    """

    def __init__(self) -> None:
        self.level = math.inf
        """In flight at the last refusal that counted; infinity: there was none, or it was borne since."""
        self.lowered_at = -math.inf
        """When the last of them came that counted."""
        self._closed_until = -math.inf
        self._closed_seconds = _FIRST_CLOSED_SECONDS
        self._borne = 0.0
        self._seen = 0
        self._seen_at = -math.inf
        self._strikes = 0.0

    def answered(self, level: int, started: float, now: float) -> None:
        """A number in flight is borne once an attempt is answered that started after it was seen."""
        self._strikes -= self._strikes / _STRIKE_ANSWERS
        self._borne -= max(0.0, self._borne - level) / _BORNE_ANSWERS
        if level > self._seen:
            self._seen, self._seen_at = level, now
        elif started >= self._seen_at:
            self._borne = max(self._borne, self._seen)
            self._seen, self._seen_at = level, now

    @property
    def disproved(self) -> bool:
        """Was the refused level borne after all?"""
        return self._borne >= self.level

    def counts(self, level: int) -> bool:
        """Is a refusal at this level this limit's?"""
        self._seen = min(self._seen, level - 1)
        if level <= self._borne:
            self._strikes += 1
            if self._strikes < _STRIKES:
                return False
        self._borne = min(self._borne, level - 1.0)
        return True

    def close(self, level: int, now: float) -> None:
        """Leave this level alone, for longer if it was refused before."""
        if level >= self.level * DECREASE:
            self._closed_seconds = min(_LONGEST_CLOSED_SECONDS, self._closed_seconds * 2)
        self.lowered_at = now
        self._closed_until = now + self._closed_seconds

    def may_try(self, now: float) -> bool:
        """Has the refused level been left alone for long enough?"""
        return self.level < math.inf and now >= self._closed_until

    def try_again(self) -> None:
        """The refused level is tried: nothing beyond, until it is refused or borne."""
        self._closed_until = math.inf

    def most(self, now: float) -> float:
        """In flight, below the refused level while that is closed."""
        return max(1.0, self.level - 1.0) if now < self._closed_until else math.inf

    def forget(self) -> None:
        """The refused level was another limit's."""
        self.level = math.inf
        self._closed_until = -math.inf
        self._closed_seconds = _FIRST_CLOSED_SECONDS
