"""A coroutine on an event loop in a thread of its own."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from batch.loop_thread import LoopThread

LONGEST_SECONDS = 20.0


def test_calls_are_made_in_order_in_the_thread() -> None:
    """`start` returns once the coroutine is ready; later calls run in its loop, one after the other."""
    seen: list[object] = []
    enough = threading.Event()

    async def main(ready: Callable[[], None]) -> None:
        seen.append(threading.current_thread().name)
        ready()
        await asyncio.Event().wait()

    def note(number: int) -> None:
        seen.append((number, threading.current_thread().name))

    thread = LoopThread("tested", main)
    thread.start()
    assert seen == ["tested"]
    for number in range(5):
        thread.call(partial(note, number))
    thread.call(enough.set)
    assert enough.wait(LONGEST_SECONDS)
    assert seen[1:] == [(number, "tested") for number in range(5)]
    before = thread.time()
    time.sleep(0.01)
    assert 0.01 <= thread.time() - before < LONGEST_SECONDS
    thread.stop()
    assert isinstance(thread.error, asyncio.CancelledError)


def test_what_it_raises_before_it_is_ready_is_raised_by_start() -> None:
    """`start` raises an error from before the coroutine was ready; a later error is kept in `error`."""

    async def fails(ready: Callable[[], None]) -> None:
        raise ValueError("not ready")

    thread = LoopThread("tested", fails)
    with pytest.raises(ValueError, match="not ready"):
        thread.start()
    with pytest.raises(RuntimeError, match="has not started"):
        thread.time()
    thread.stop()

    may_fail = threading.Event()

    async def fails_later(ready: Callable[[], None]) -> None:
        ready()
        await asyncio.to_thread(may_fail.wait, LONGEST_SECONDS)
        raise ValueError("later")

    thread = LoopThread("tested", fails_later)
    thread.start()
    assert thread.error is None
    may_fail.set()
    thread._thread.join(LONGEST_SECONDS)
    assert str(thread.error) == "later"


def test_calls_before_its_start_or_after_its_end_do_nothing() -> None:
    """The owner of the thread need not know whether the loop has closed."""

    async def main(ready: Callable[[], None]) -> None:
        ready()

    thread = LoopThread("tested", main)
    thread.call(lambda: pytest.fail("called before the start"))
    thread.stop()
    thread.start()
    thread.stop()
    thread.call(lambda: pytest.fail("called after the end"))
    assert thread.error is None
