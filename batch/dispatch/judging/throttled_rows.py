"""When a row that is only ever throttled is given up."""

from batch.clock import Clock
from batch.dispatch.request import Request
from batch.errors import DispatchError

# Limits are per minute, mostly: two of them pass before anybody concludes that a request can never be served.
_PATIENCE_SECONDS = 120.0
# With many such rows left, each would wait for pauses that the others caused: so many throttles for all of them.
_THROTTLES_PER_ATTEMPT = 10
_UNAVAILABLE = 503


class ThrottledRows:
    """Follows which rows of a lane were throttled since somebody was last answered.

    A throttle says nothing about a row while rows that were not tried yet might be answered. Where every row that is
    left has been throttled, and nobody was answered for two minutes, a row that was throttled `max_attempts` times is
    given up: a request larger than a limit is throttled for ever.
    """

    def __init__(self, clock: Clock, max_attempts: int, timeout_seconds: float) -> None:
        self._clock = clock
        self._max_attempts = max_attempts
        self._timeout_seconds = timeout_seconds
        self._answers = -1
        self._since = 0.0
        self._count = 0
        self._times: dict[Request, int] = {}

    def counts(self, request: Request, answers: int) -> bool:
        """Was somebody else answered since the row was last throttled? Then the attempt counts."""
        seen, request.answers_seen = request.answers_seen, answers
        return answers > max(seen, 0)

    def hopeless(self, request: Request, error: DispatchError, *, answers: int, others_open: int) -> bool:
        """Has the row been throttled for as long as one waits?

        Args:
            answers: good answers of the pool so far.
            others_open: rows of the lane that have no outcome yet and are not held.
        """
        now = self._clock()
        if answers != self._answers:
            self._answers, self._since, self._count = answers, now, 0
            self._times.clear()
        self._count += 1
        self._times[request] = self._times.get(request, 0) + 1
        if len(self._times) < others_open:
            return False
        # A server that has answered nobody and says 503 loads its model, whatever it says of when to come back.
        loading = error.status == _UNAVAILABLE and not answers
        patience = self._timeout_seconds if loading else _PATIENCE_SECONDS
        silent = now - self._since
        if silent >= patience and self._times[request] >= self._max_attempts:
            return True
        return silent >= self._timeout_seconds and self._count >= self._max_attempts * _THROTTLES_PER_ATTEMPT

    def ended(self, request: Request) -> None:
        """The row has its outcome."""
        self._times.pop(request, None)
