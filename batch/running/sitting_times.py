"""Measures how long a sitting takes, and how long of that it scores and dispatches."""

from batch.clock import Clock
from batch.running.dispatch_thread import DispatchState
from batch.runs.manifest import Sitting


class SittingTimes:
    """Times of one sitting, which begins when this is constructed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock()
        self._scored_at: float | None = None
        self._first_sent_at: float | None = None
        self._last_outcome_at: float | None = None

    def scored(self) -> None:
        """Note that the last shard has been scored."""
        self._scored_at = self._clock()

    def saw(self, state: DispatchState) -> None:
        """Note when the first request was sent and the last shard completed, as the dispatcher reports it."""
        now = self._clock()
        if state.since_first is not None and self._first_sent_at is None:
            self._first_sent_at = now - state.since_first
        if state.since_last is not None:
            self._last_outcome_at = now - state.since_last

    def sitting(self) -> Sitting:
        """The record of the sitting if it ended now."""
        now = self._clock()
        dispatch = 0.0
        if self._first_sent_at is not None:
            dispatch = max(0.0, (self._last_outcome_at or now) - self._first_sent_at)
        scoring = (self._scored_at or now) - self._started
        return Sitting(wall=now - self._started, scoring=scoring, dispatch=dispatch)
