"""What progress and `status` show while endpoints ask for a pause: in virtual time, and from a run directory."""

import asyncio
from pathlib import Path
from time import time

import pytest

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.judging.patience import duration
from batch.dispatch.request import Completion, Request
from batch.dispatch.snapshot import LaneSnapshot, ProgressSnapshot
from batch.errors import RateLimited
from batch.runs.layout import Layout
from batch.runs.waits import StoredWait, read_waits, write_waits
from jobs.commands.status import read_status
from jobs.terminal.check_and_status import render_status
from jobs.terminal.progress import ProgressDisplay
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.job_folder import ENDPOINTS, JobFolder
from tests.rehearsed import serve
from tests.virtual_time import run


def test_a_pool_says_how_long_it_waits_and_what_the_server_said() -> None:
    """After a Retry-After of an hour the pool gives the seconds left, the time of day and the server's message."""
    told: list[tuple[str | None, float]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def server(request: Request, endpoint: EndpointSpec) -> Completion:
            if 2 < loop.time() - began < 3600:
                raise RateLimited("HTTP 429", status=429, retry_after=3600.0, words="hourly quota")
            await asyncio.sleep(0.5)
            return answer()

        limits = LimitsSpec(max_in_flight=2)
        model = ModelSpec(name="m", endpoints=(EndpointSpec(url="http://a/v1", model="m", limits=limits),))
        sending: Dispatcher = built(MemoryWork({(0, "m"): list(range(20))}), server, [model])
        sending.feed(0)
        sending.close_feed()
        pool = sending.lanes["m"].pool

        def look() -> None:
            wait = pool.wait()
            told.append((pool.waits_for(), 0.0 if wait is None else wait.seconds))

        loop.call_later(1, look)
        loop.call_later(1802.5, look)
        await sending.run()

    run(main())
    (_, none), (words, seconds) = told
    assert none == 0.0
    assert 1790 < seconds < 1810
    assert words is not None
    assert words.startswith("Thu 01 Jan 00:")
    assert words.endswith("http://a/v1: HTTP 429: hourly quota")


def test_the_time_that_is_left_includes_the_wait() -> None:
    """With 100 rows left and an hour's wait, the estimated time left is at least that hour."""
    with ProgressDisplay() as progress:
        for wait in (0.0, 3600.0):
            lane = LaneSnapshot("m", 200, 100, 100, 0, 0, 3, None, "http://a/v1", wait)
            progress.update(ProgressSnapshot("dispatch", 200, 200, (lane,), totals_final=True))
        assert progress.view is not None
        assert progress.view.eta is not None
        assert progress.view.eta >= 3600


def test_status_shows_waits_that_are_not_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`status` reads waits from the run directory, so also those of a stopped run; a damaged file reads as none."""
    from rich.console import Console

    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(4)
        there.run()
    layout = Layout(there.run_dir)
    write_waits(
        layout.waits, {"small": StoredWait(time() + 7200, "http://a/v1: weekly quota"), "old": StoredWait(1, "x")}
    )
    found = read_status(there.run_dir)
    assert found.waits.keys() == {"small"}
    render_status(found, there.run_dir, Console())
    assert "small waits until" in (shown := capsys.readouterr().out)
    assert "weekly quota" in shown
    layout.waits.write_bytes(b"{")
    assert read_waits(layout.waits) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (45, "45 s"), (90, "1 min 30 s"), (3600, "1 h"), (4800, "1 h 20 min"), (198_300, "2 d 7 h")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    """A duration has at most its two largest units, and no unit that is zero."""
    assert duration(seconds) == text
