"""Rows of one lane that wait to be sent: fresh ones from disk, and those that come back."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable

from batch.dispatch.request import Request


class RowQueue:
    """Gives rows to the lane's workers: first those whose back-off has passed, then fresh ones.

    Fresh rows are asked of `refill` a batch at a time, only when a worker needs one, so memory does not grow with
    the input.
    """

    def __init__(self, refill: Callable[[], Iterable[Request]]) -> None:
        self._refill = refill
        self._loop = asyncio.get_running_loop()
        self._fresh: deque[Request] = deque()
        self._delayed: list[tuple[float, int, Request]] = []
        self._order = 0
        self._idle: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    async def get(self) -> Request | None:
        """The next row, waiting for one if need be; `None` once stopped."""
        while not self._stopped:
            row = self._pop()
            if row is not None:
                return row
            await self._wait()
        return None

    def put_back(self, request: Request, delay: float) -> None:
        """Give `request` out again, not before `delay` seconds from now."""
        self._order += 1
        heapq.heappush(self._delayed, (self._loop.time() + delay, self._order, request))
        self.wake()

    def wake(self) -> None:
        """There may be rows now: let idle workers look."""
        if self._idle:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            while self._idle:
                future = self._idle.popleft()
                if not future.done():
                    future.set_result(None)

    def stop(self) -> None:
        """Give out nothing more; rows still here stay as they are on disk."""
        self._stopped = True
        self.wake()

    def _pop(self) -> Request | None:
        if self._delayed and self._delayed[0][0] <= self._loop.time():
            return heapq.heappop(self._delayed)[2]
        if not self._fresh:
            self._fresh.extend(self._refill())
        return self._fresh.popleft() if self._fresh else None

    async def _wait(self) -> None:
        if self._delayed and self._timer is None:
            self._timer = self._loop.call_at(self._delayed[0][0], self._due)
        future = self._loop.create_future()
        self._idle.append(future)
        await future

    def _due(self) -> None:
        self._timer = None
        self.wake()
