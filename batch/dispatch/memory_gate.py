"""Bodies of requests under way, weighed: hundreds of very long prompts at once would fill the memory."""

import asyncio
from collections import deque

# So much of one lane's requests may be under way at once; a single one may be larger.
MOST_BYTES = 256 << 20
# Below this, their number bounds them.
_WEIGHED_BYTES = 64 << 10


class ByteSemaphore:
    """Bytes of large requests under way; who would be too much waits, first come first served."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.held = 0
        """Bytes of large requests under way."""
        self._most = most
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @staticmethod
    def is_large(size: int) -> bool:
        """Is a request of so many bytes large?"""
        return size > _WEIGHED_BYTES

    async def take(self, size: int) -> None:
        """Wait until a large request fits. Cancelled while waiting, nothing is held."""
        if not self._waiting and self._fits(size):
            self.held += size
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, future))
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():
                # Served and cancelled within one turn of the loop.
                self.release(size)
            else:
                # Who was behind may be smaller.
                self._serve()
            raise

    def release(self, size: int) -> None:
        """A large request has ended."""
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
