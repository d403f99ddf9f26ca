"""A coroutine on an event loop of its own, in a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

Main = Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
"""A coroutine function. It calls its argument once, when the owner of the thread may use what it has built."""


class LoopThread:
    """Runs one coroutine function on an event loop in a thread that does not keep the process alive.

    Every method may be called from any other thread.

    Attributes:
        error: what the coroutine raised; `None` while it has raised nothing.
    """

    def __init__(
        self, name: str, main: Main, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    ) -> None:
        """
        Args:
            name: of the thread.
            loop_factory: makes the event loop; left out: asyncio's own.
        """
        self.error: BaseException | None = None
        self._main = main
        self._loop_factory = loop_factory
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread, and return once the coroutine has said that it is ready.

        Raises:
            BaseException: what the coroutine raised instead.
        """
        self._thread.start()
        self._ready.wait()
        if self.error is not None:
            raise self.error

    def call(self, act: Callable[[], object]) -> None:
        """Have the loop call `act` soon, after what it was given before. Does nothing once the loop has closed."""
        # RuntimeError comes from a closed loop and from nothing else, and the loop may close at this very moment.
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(act)

    def time(self) -> float:
        """The loop's clock, in seconds. Raises RuntimeError before the coroutine is ready."""
        if self._loop is None:
            raise RuntimeError("the loop has not started")
        return self._loop.time()

    def stop(self) -> None:
        """Cancel the coroutine if it is still running, and wait until the thread has ended."""
        if self._task is not None:
            self.call(self._task.cancel)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._run_main())
        except BaseException as error:  # noqa: BLE001  the outermost edge of the thread: its owner raises it
            self.error = error
        finally:
            self._ready.set()

    async def _run_main(self) -> None:
        def ready() -> None:
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
            self._ready.set()

        await self._main(ready)
