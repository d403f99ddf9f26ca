"""Decides whether and when a row is tried again, by tenacity's rules on a state that we build. Nothing sleeps here."""

from random import Random
from typing import Any

from tenacity import RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base, wait_exponential

from batch.clock import Clock
from batch.dispatch.request import Request
from batch.errors import DispatchError

# The first retry waits for up to this long, the next for up to twice as long, and so on: AWS's full jitter with the
# OpenAI SDK's half second.
BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 30.0


# The retries that a lane may make: this many for each fresh row, and this many per second besides (Finagle has 0.2 and
# 10). They are more than the fifth of the attempts that a bad endpoint may lose, or its rows would all wait for the end
# of the lane.
RETRIES_PER_ROW = 0.4
RETRIES_PER_SECOND = 10.0
_MOST_SAVED_SECONDS = 10.0


class RetryBudget:
    """How many failed rows may be sent again, so that an ailing endpoint never gets mostly retries.

    No row is lost by it: a row waits while the budget is used up, and fresh rows go first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._as_of = clock()
        self._most = RETRIES_PER_SECOND * _MOST_SAVED_SECONDS
        self._level = self._most

    def earn(self) -> None:
        """A fresh row is sent."""
        self._level = min(self._most, self._level + RETRIES_PER_ROW)

    def delay(self) -> float:
        """Seconds until a retry may be sent; 0.0: now."""
        now = self._clock()
        self._level = min(self._most, self._level + (now - self._as_of) * RETRIES_PER_SECOND)
        self._as_of = now
        # A millisecond is added, since timers may fire a little early.
        return 0.0 if self._level >= 1.0 else (1.0 - self._level) / RETRIES_PER_SECOND + 0.001

    def spend(self) -> None:
        """A retry is sent. Call it only right after `delay` returned 0.0."""
        self._level -= 1.0


class FullJitter(wait_base):
    """A wait of `U(0, min(longest, base * 2**n))`, drawn from `random`; tenacity's own class draws from the global
    one.
    """

    def __init__(self, base: float, longest: float, random: Random) -> None:
        self._full = wait_exponential(multiplier=base, max=longest)
        self._random = random

    def __call__(self, retry_state: RetryCallState) -> float:
        return self._random.uniform(0.0, float(self._full(retry_state)))


class RetryRule:
    """Allows at most `max_attempts` attempts per row, as the lane counts them.

    A throttled row goes back at once, since the endpoint's own pause delays it; any other waits by full jitter. An
    attempt that never reached a server does not count: the endpoint's cooldown decides when the next one is made.
    """

    def __init__(self, max_attempts: int, random: Random) -> None:
        self._stop = stop_after_attempt(max_attempts)
        self._retryable = retry_if_exception(lambda e: isinstance(e, DispatchError) and e.retryable)
        self._wait = FullJitter(BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, random)

    def delay(self, request: Request, error: DispatchError) -> float | None:
        """Seconds until the row may be sent again after a failed attempt; `None`: give it up."""
        if not error.reached or error.blame == "gone":
            return 0.0
        if error.most_attempts is not None and request.attempts >= error.most_attempts:
            return None
        state = _state(request.attempts, error)
        if not self._retryable(state) or self._stop(state):
            return None
        if error.blame == "throttle":
            return 0.0
        return self._wait(state)


def _state(attempts: int, error: DispatchError) -> RetryCallState:
    state = RetryCallState(retry_object=_NO_OBJECT, fn=None, args=(), kwargs={})
    state.attempt_number = attempts
    state.set_exception((type(error), error, error.__traceback__))
    return state


# The rules we use read only the attempt's number and its exception.
_NO_OBJECT: Any = None
