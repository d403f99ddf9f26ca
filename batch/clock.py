"""Time, passed in."""

import asyncio
from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds, and waiting for them to pass."""

    def now(self) -> float:
        """Seconds since some fixed instant; never goes back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; a cancellation passes through."""
        ...


class LoopClock:
    """The running event loop's own clock, so that a virtual-time loop moves timers and readings together."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
