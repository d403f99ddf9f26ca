"""Decides when to give up a row that is throttled again and again."""

from batch.clock import Clock
from batch.dispatch.request import Request
from batch.errors import DispatchError

# Most limits are per minute, so a row is given up only after two minutes without an answer.
_PATIENCE_SECONDS = 120.0
# With many such rows left, each would wait for the pauses that the others caused. All together may be throttled this
# often for each of `max_attempts`.
_THROTTLES_PER_ATTEMPT = 10
_UNAVAILABLE = 503


class ThrottledRows:
    """Keeps track of the rows of a lane that were throttled since the last good answer.

    A throttle says nothing about a row while rows that were not tried yet might be answered. Once every remaining row
    was throttled and none was answered for two minutes, a row that was throttled `max_attempts` times is given up: a
    request larger than a limit is throttled forever.
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
        """Does the throttled attempt count against `max_attempts`? It does if other rows were answered since the last
        one.
        """
        seen, request.answers_seen = request.answers_seen, answers
        return answers > max(seen, 0)

    def hopeless(self, request: Request, error: DispatchError, *, answers: int, others_open: int) -> bool:
        """Should the row be given up, because it was throttled for too long?

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
        # A server that has answered nothing yet and sends 503 loads its model, whatever its `retry-after` says.
        loading = error.status == _UNAVAILABLE and not answers
        patience = self._timeout_seconds if loading else _PATIENCE_SECONDS
        silent = now - self._since
        if silent >= patience and self._times[request] >= self._max_attempts:
            return True
        return silent >= self._timeout_seconds and self._count >= self._max_attempts * _THROTTLES_PER_ATTEMPT

    def ended(self, request: Request) -> None:
        """The row has its outcome."""
        self._times.pop(request, None)
