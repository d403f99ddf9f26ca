"""Puts another row at hand in the place of the one that is about to get an endpoint."""

from batch.clock import Clock
from batch.dispatch.answer_lengths import ExpectedTokens
from batch.dispatch.balancing.row_choosers import RowAssigner
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.pool import EndpointPool
from batch.dispatch.queue import RowQueue
from batch.dispatch.request import Request

# With fewer rows at hand for each that may be under way, the longest go first, whichever endpoint they suit.
_CHOOSE_PER_SLOT = 4


class RowExchange:
    """Exchanges rows of one lane."""

    def __init__(
        self, pool: EndpointPool, queue: RowQueue, expected: ExpectedTokens, chooser: RowAssigner | None, clock: Clock
    ) -> None:
        """
        Args:
            expected: how long answers will be.
            chooser: has each endpoint take rows at hand that suit it; left out: first come, first served.
        """
        self._pool = pool
        self._queue = queue
        self._expected = expected
        self._chooser = chooser
        self._clock = clock
        if chooser is not None:
            pool.better = self._better
        pool.elsewhere = self._from_elsewhere

    def _better(self, request: Request, endpoint: Endpoint) -> Request:
        """Of the rows at hand, the one that `endpoint` should take in place of `request`."""
        chooser = self._chooser
        assert chooser is not None
        if request.rows:
            return request
        least = _CHOOSE_PER_SLOT * self._pool.allowed
        other = self._queue.exchange(request, lambda at_hand: chooser.choose(endpoint, at_hand, self._clock()), least)
        if other is request:
            return request
        if self._fits(other, endpoint):
            return other
        self._queue.undo_exchange(request, other)
        return request

    def _from_elsewhere(self, request: Request, endpoint: Endpoint) -> Request:
        """A row at hand from elsewhere in the input, for a probe; `request` is the next then.

        Bad rows come in clumps: only rows from elsewhere tell whether the endpoint answers nobody.
        """
        other = self._queue.exchange_for_distant(request) if not request.rows else request
        if other is request:
            return request
        fits = self._fits(other, endpoint)
        self._queue.put_back(request if fits else other)
        return other if fits else request

    def _fits(self, other: Request, endpoint: Endpoint) -> bool:
        other.cost = self._expected.cost(other)
        return endpoint.can_take(other.cost) and self._pool.affords(other)
