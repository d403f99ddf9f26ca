"""A limit on the memory of large requests in flight: hundreds of very long prompts at once would fill it."""

import asyncio
from collections import deque

# The most bytes of one lane's large requests in flight at once; a single request may be larger.
MOST_BYTES = 256 << 20
# Requests up to this size are not counted: the number in flight bounds their memory.
_WEIGHED_BYTES = 64 << 10


class ByteSemaphore:
    """Counts the bytes of large requests in flight; requests that would be too much wait, first come, first served."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.held = 0
        """Bytes of large requests in flight."""
        self._most = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @staticmethod
    def is_large(size: int) -> bool:
        """Is a request of this many bytes large enough to be counted?"""
        return size > _WEIGHED_BYTES

    async def take(self, size: int) -> None:
        """Wait until a large request fits, and take its bytes. If cancelled while waiting, nothing is held."""
        if not self._waiting and self._fits(size):
            self.held += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                # It was served and cancelled within one turn of the loop.
                self.release(size)
            else:
                # A smaller request may have waited behind this one.
                self._serve()
            raise

    def release(self, size: int) -> None:
        """A large request has ended: give its bytes back."""
        self.held -= size
        self._serve()

    def _fits(self, size: int) -> bool:
        return self.held == 0 or self.held + size <= self._most

    def _serve(self) -> None:
        while self._waiting:
            size, future = self._waiting[0]
            if not future.cancelled():
                if not self._fits(size):
                    break
                self.held += size
                future.set_result(None)
            self._waiting.popleft()
