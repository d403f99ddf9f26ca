"""A dispatcher in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch.environment import NO_ENVIRONMENT
from batch.running.dispatch_thread import DispatchPlan, DispatchThread
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.job import DispatchSpec

LONGEST_SECONDS = 20.0


@pytest.fixture
def lingering(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Keep threads alive after their loop has closed: an event that is set then, and one that lets them end."""
    closed, may_end = threading.Event(), threading.Event()

    class Lingering(asyncio.Runner):  # type: ignore[misc]  # final, and only watched
        def close(self) -> None:
            super().close()
            closed.set()
            may_end.wait(LONGEST_SECONDS)

    monkeypatch.setattr("batch.loop_thread.asyncio.Runner", Lingering)
    yield closed, may_end
    may_end.set()


def test_calls_while_it_ends_do_no_harm(tmp_path: Path, lingering: tuple[threading.Event, threading.Event]) -> None:
    """A disk error or Ctrl-C may call the dispatcher after its loop has closed and before its thread has ended."""
    closed, may_end = lingering
    endpoint = EndpointSpec(url="http://127.0.0.1:9/v1", model="m")
    model = ModelSpec(name="m", endpoints=(endpoint,))
    (tmp_path / "run").mkdir()
    plan = DispatchPlan(str(tmp_path / "run"), (model,), {"m": None}, DispatchSpec(), seed=0)
    dispatcher = DispatchThread(plan, NO_ENVIRONMENT)
    dispatcher.start()
    dispatcher.close_feed()
    assert closed.wait(LONGEST_SECONDS)
    dispatcher.feed([0])
    dispatcher.drain()
    state = dispatcher.poll()
    assert state.end is not None
    assert not state.end.interrupted
    threading.Timer(0.1, may_end.set).start()
    dispatcher.close()
