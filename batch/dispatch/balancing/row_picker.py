"""Which of a lane's rows goes to the endpoint that the pool has picked."""

from batch.clock import Clock
from batch.dispatch.answer_lengths import ExpectedTokens
from batch.dispatch.balancing.row_assigners import RowAssigner
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.health import State
from batch.dispatch.pool import EndpointPool
from batch.dispatch.queue import RowQueue
from batch.dispatch.request import Request

# With fewer rows at hand for each that may be under way, the longest go first, whichever endpoint they suit.
_CHOOSE_PER_SLOT = 4


class RowPicker:
    """Replaces the row that is to be sent with one at hand that suits the endpoint better, where there is one."""

    def __init__(
        self, pool: EndpointPool, queue: RowQueue, expected: ExpectedTokens, assigner: RowAssigner | None, clock: Clock
    ) -> None:
        """
        Args:
            expected: how long answers will be.
            assigner: says which kind of row suits an endpoint; `None`: rows go out first come, first served.
        """
        self._pool = pool
        self._queue = queue
        self._expected = expected
        self._assigner = assigner
        self._clock = clock

    @property
    def update_due(self) -> bool:
        """Should `update` be called before the next row is picked?"""
        assigner = self._assigner
        return assigner is not None and assigner.update_due(self._clock()) and self._enough_rows()

    def update(self) -> None:
        """Work out anew which endpoints get which rows. This may take milliseconds."""
        assert self._assigner is not None
        self._assigner.update(self._queue.counts, self._clock())

    def pick(self, request: Request, endpoint: Endpoint) -> Request:
        """The row that `endpoint` gets in place of `request`, or `request` itself.

        A row that gets the endpoint leaves the queue, and `request` is the next one to be given out.
        """
        if endpoint.health.state is not State.UP:
            return self._pick_distant(request, endpoint)
        if self._assigner is not None:
            return self._pick_assigned(self._assigner, request, endpoint)
        return request

    def _pick_assigned(self, assigner: RowAssigner, request: Request, endpoint: Endpoint) -> Request:
        if request.rows or request.sent or request.avoid or not self._enough_rows():
            return request
        kind = assigner.choose(endpoint, self._queue.counts)
        other = self._queue.first_of(kind) if kind is not None else None
        if other is None or not self._fits(other, endpoint):
            return request
        self._queue.replace(other, request)
        return other

    def _pick_distant(self, request: Request, endpoint: Endpoint) -> Request:
        """A row from elsewhere in the input, for the probe of an endpoint that is down or doubted.

        Bad rows come in clumps: only rows from elsewhere tell whether the endpoint answers nobody.
        """
        other = self._queue.find_distant() if not request.rows else None
        if other is None or not self._fits(other, endpoint):
            return request
        self._queue.remove(other)
        self._queue.put_back(request)
        return other

    def _enough_rows(self) -> bool:
        return self._queue.fresh >= _CHOOSE_PER_SLOT * self._pool.allowed

    def _fits(self, other: Request, endpoint: Endpoint) -> bool:
        other.cost = self._expected.cost(other)
        return endpoint.can_take(other.cost) and self._pool.affords(other)
