"""The queue of one lane: fresh rows from disk, and rows that come back to be sent again."""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from batch.dispatch.request import Request, RowKind
from batch.dispatch.retry import RetryBudget
from batch.dispatch.row_buffer import RowBuffer

# More rows are read once a sixteenth of the wanted number has gone, so that the check costs little per row.
_GONE = 16
# Steps of this share of the queue visit all its parts evenly, whatever their number.
_GOLDEN_RATIO = 0.618
# Rows at hand take at most about this much memory, plus one batch.
_MOST_BYTES = 32 << 20


class RowQueue:
    """Gives rows to the lane's workers: first rows whose back-off has passed, then fresh ones.

    Fresh rows are read by `refill`, a batch at a time, so memory does not grow with the input. Once `refill` has no
    more, the rows at hand go out in order of expected work, longest first, so that the lane does not end with one long
    answer. Retries go out only as far as the retry budget allows.
    """

    def __init__(
        self,
        refill: Callable[[], Sequence[Request]],
        *,
        ahead: Callable[[], int],
        work: Callable[[Request], float],
        retries: RetryBudget,
        kind: Callable[[Request], RowKind] | None = None,
    ) -> None:
        """
        Args:
            refill: reads the next fresh rows; empty: there are none now.
            ahead: how many fresh rows to keep at hand, so that long ones among the last are seen in time.
            work: how long a row is expected to take, compared with others.
            retries: limits how many rows are sent again.
            kind: the kind of a row; needed for `counts` and `first_of`.
        """
        self._refill = refill
        self._ahead = ahead
        self._work = work
        self._retries = retries
        self._loop = asyncio.get_running_loop()
        self._fresh = RowBuffer(kind)
        self._more = True
        self._most_rows = 1
        self._low = math.inf
        self._returned: deque[Request] = deque()
        self._again: deque[Request] = deque()
        self._delayed: list[tuple[float, int, Request]] = []
        self._order = 0
        self._distance = 0.0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._due_at = 0.0
        self._stopped = False

    async def get(self) -> Request | None:
        """The next row, after waiting for one if necessary; `None` once the queue is stopped."""
        while not self._stopped:
            row = self._pop()
            if row is not None:
                return row
            await self._wait()
        return None

    def get_nowait(self) -> Request | None:
        """The next row; `None` if there is none now."""
        return None if self._stopped else self._pop()

    @property
    def fresh(self) -> int:
        """Fresh rows at hand."""
        return len(self._fresh)

    @property
    def counts(self) -> Mapping[RowKind, int]:
        """Fresh rows at hand, by kind."""
        return self._fresh.counts

    def first_of(self, kind: RowKind) -> Request | None:
        """The first fresh row of this kind; it stays where it is."""
        return self._fresh.first_of(kind)

    def find_distant(self) -> Request | None:
        """A fresh row that is far from the head, each time in another place; it stays where it is."""
        self._distance = (self._distance + _GOLDEN_RATIO) % 1.0
        return self._fresh.find(self._distance)

    def remove(self, row: Request) -> None:
        """A fresh row is sent out of turn."""
        self._fresh.remove(row)

    def replace(self, row: Request, request: Request) -> None:
        """A fresh row is sent out of turn, and `request` is the first of the fresh ones."""
        self._fresh.remove(row)
        self._fresh.put_first(request)

    def put_back(self, request: Request, delay: float = 0.0, *, retry: bool = False) -> None:
        """Give `request` out again after `delay` seconds.

        Args:
            retry: does this count against the retry budget?
        """
        if not retry:
            self._returned.append(request)
        elif delay <= 0.0:
            self._again.append(request)
        else:
            self._order += 1
            heapq.heappush(self._delayed, (self._loop.time() + delay, self._order, request))
        if self._idle:
            # One row needs one worker. A worker that finds the row not yet due sets the timer again.
            self._wake_workers(1)

    def wake(self) -> None:
        """There may be fresh rows now: wake all idle workers."""
        self._more = True
        self._low = math.inf
        self._wake_workers(len(self._idle))

    def stop(self) -> None:
        """Give out no more rows. Those still here keep the state they have on disk."""
        self._stopped = True
        self._wake_workers(len(self._idle))

    def _wake_workers(self, workers: int) -> None:
        while self._idle and workers:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                workers -= 1

    def _pop(self) -> Request | None:
        if self._returned:
            return self._returned.popleft()
        if self._delayed or self._again:
            now = self._loop.time()
            while self._delayed and self._delayed[0][0] <= now:
                self._again.append(heapq.heappop(self._delayed)[2])
            if self._again and self._retries.delay() <= 0.0:
                self._retries.spend()
                return self._again.popleft()
        if self._more and len(self._fresh) < self._low:
            self._read_ahead()
        row = self._fresh.pop()
        if row is not None:
            self._retries.earn()
        return row

    def _read_ahead(self) -> None:
        ahead = self._ahead()
        while self._more and len(self._fresh) < min(ahead, self._most_rows):
            rows = self._refill()
            self._fresh.extend(rows)
            self._more = bool(rows)
            if rows:
                self._most_rows = max(1, _MOST_BYTES * len(rows) // sum(len(row.body) for row in rows))
        target = min(ahead, self._most_rows)
        self._low = target - target // _GONE
        if not self._more:
            self._fresh.sort(self._work)

    async def _wait(self) -> None:
        self._set_timer()
        future = self._loop.create_future()
        self._idle.append(future)
        await future

    def _set_timer(self) -> None:
        """Set a timer that wakes a worker when the next delayed row may go out."""
        if self._again:
            due = self._loop.time() + self._retries.delay()
        elif self._delayed:
            due = self._delayed[0][0]
        else:
            return
        if self._timer is not None:
            # `_due_at` is kept here because uvloop's handles have no time if they are due at once.
            if self._due_at <= due:
                return
            self._timer.cancel()
        self._due_at = due
        self._timer = self._loop.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        self._wake_workers(1)
        if self._idle:
            self._set_timer()
