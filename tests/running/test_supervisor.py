"""RestartingDispatcher: the dispatcher's process dies in the middle of a run, and another takes over."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch.dispatch.dispatcher import DispatchEnd
from batch.dispatch.snapshot import LaneSnapshot
from batch.errors import DispatcherDied
from batch.running.dispatch_thread import DispatchPlan, DispatchState, DispatchThread
from batch.running.engine import InlineEngine
from batch.running.supervisor import MOST_RESTARTS, WITHIN_SECONDS, RestartingDispatcher
from jobs.environment import ENVIRONMENT
from schemas.job import JobSpec
from tests.job_folder import ENDPOINTS, JobFolder, dollars
from tests.rehearsed import serve
from tests.running.test_pipeline import assert_totals_match

ROWS = 60
# The pipeline polls ten times a second, so it sees a dispatcher die after some of the rows were sent.
SLOW = tuple({**endpoint, "latency": {"median_seconds": 0.06}} for endpoint in ENDPOINTS)


class MortalThread(DispatchThread):
    """A dispatcher that dies, with requests in flight, once `rows` rows have ended; `None`: it never dies."""

    def __init__(self, plan: DispatchPlan, rows: int | None) -> None:
        super().__init__(plan, ENVIRONMENT)
        self._rows_to_live = rows

    def poll(self) -> DispatchState:
        state = super().poll()
        if self._rows_to_live is not None and sum(lane.done for lane in state.lanes) >= self._rows_to_live:
            self.close()
            raise DispatcherDied("the dispatcher's process died")
        return state


@pytest.fixture
def lives(monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
    """Rows after which each dispatcher dies, in the order they start; `None` and all further dispatchers never die."""
    planned: list[int | None] = []
    waiting: Iterator[int | None] | None = None

    def dispatcher(engine: InlineEngine, plan: DispatchPlan) -> MortalThread:
        nonlocal waiting
        waiting = iter(planned) if waiting is None else waiting
        thread = MortalThread(plan, next(waiting, None))
        thread.start()
        return thread

    monkeypatch.setattr(InlineEngine, "dispatcher", dispatcher)
    return planned


def two_at_once(there: JobFolder, **changes: Any) -> JobSpec:
    """The job with two requests in flight, all for one model, so that the dispatcher can die in the middle."""
    models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
    for model in models:
        model["endpoints"][0]["limits"] = {"max_in_flight": 2}
    return there.job(models=models, plan={"strategy": "pin", "model": "small"}, **changes)


@pytest.mark.parametrize("on_ambiguous", ["retry", "fail"])
def test_a_run_survives_the_deaths_of_dispatchers(tmp_path: Path, lives: list[int | None], on_ambiguous: str) -> None:
    """Answered rows are not sent again; rows in flight are ambiguous, and are sent again or failed as the job says."""
    lives += [10, 10]
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(ROWS)
        report = there.run(two_at_once(there, dispatch={"on_ambiguous": on_ambiguous}))
        rows = there.results()
        lost = {one.row for one in report.ambiguous}
        assert 0 < len(report.ambiguous) <= 4
        assert [row["row"] for row in rows] == list(range(ROWS))
        assert {row["row"] for row in rows if row["status"] != "ok"} == (lost if on_ambiguous == "fail" else set())
        sent = Counter({int(prompt.split()[0][1:]): times for prompt, times in served.prompts().items()})
        assert set(sent) == set(range(ROWS))
        again = {row: times - 1 for row, times in sent.items() if times > 1}
        listed = Counter(one.row for one in report.ambiguous)
        assert again == (dict(listed) if on_ambiguous == "retry" else {})
        assert "the dispatcher's process died and was started again 2 times" in report.notes
        assert_totals_match(report, rows)


def test_the_budget_counts_what_dead_dispatchers_spent(tmp_path: Path, lives: list[int | None]) -> None:
    """The budget holds over all dispatchers; a request without a known end counts at the most it can have cost."""
    lives += [8, 8, 8]
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(ROWS, params={"max_tokens": 50})
        cap = Decimal("0.00015")
        report = there.run(two_at_once(there, dispatch={"budget_usd": str(cap)}))
        rows = there.results()
        billed = dollars(rows) / report.rows.ok * len(served.posts)
        assert report.rows.unsent > 0
        assert report.ambiguous
        assert report.cost_usd < billed <= cap
        assert {row["error"]["kind"] for row in rows if row["status"] == "unsent"} == {"budget"}


def test_a_dispatcher_that_keeps_dying_stops_the_run(tmp_path: Path, lives: list[int | None]) -> None:
    """After MOST_RESTARTS restarts the next death ends the run with one line; rerunning the command resumes it."""
    lives += [1] * (MOST_RESTARTS + 1)
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(ROWS)
        job = two_at_once(there)
        with pytest.raises(DispatcherDied) as stopped:
            there.run(job)
        assert str(stopped.value) == (
            "the dispatcher's process died 4 times within 10 minutes; rerun the same command to resume"
        )
        report = there.run(job)
        assert report.rows.ok == ROWS
        listed = Counter(one.row for one in report.ambiguous)
        for prompt, times in served.prompts().items():
            assert times - 1 == listed[int(prompt.split()[0][1:])]


class ScriptedDispatcher:
    """A dispatcher whose polls are given; it records all other calls."""

    def __init__(self, *states: DispatchState | None) -> None:
        """A state of `None` makes `poll` raise DispatcherDied."""
        self._states = list(states)
        self.asked: list[Any] = []

    def feed(self, shards: Sequence[int]) -> None:
        self.asked.append(list(shards))

    def close_feed(self) -> None:
        self.asked.append("close_feed")

    def drain(self) -> None:
        self.asked.append("drain")

    def poll(self) -> DispatchState:
        state = self._states.pop(0)
        if state is None:
            raise DispatcherDied("the dispatcher's process died")
        return state

    def close(self) -> None:
        self.asked.append("close")


def at(*completed: int, end: DispatchEnd | None = None) -> DispatchState:
    return DispatchState((), completed, None, None, end)


class Started:
    """A RestartingDispatcher that starts the given dispatchers in turn, on a clock set by hand."""

    def __init__(self, *dispatchers: ScriptedDispatcher) -> None:
        self._waiting = iter(dispatchers)
        self.now = 0.0
        self.dispatcher = RestartingDispatcher(lambda: next(self._waiting), lambda: self.now)
        self.dispatcher.start()


@pytest.mark.parametrize(("seconds", "survives"), [(WITHIN_SECONDS / MOST_RESTARTS, True), (199.0, False)])
def test_only_deaths_within_ten_minutes_stop_a_run(seconds: float, survives: bool) -> None:
    """A run that goes on for days may see more deaths than MOST_RESTARTS."""
    deaths = 3 * MOST_RESTARTS
    started = Started(*[ScriptedDispatcher(at(), None) for _ in range(deaths)], ScriptedDispatcher(at(), at()))

    def live_through_them() -> None:
        for _ in range(deaths + 2):
            started.dispatcher.poll()
            started.now += seconds

    if survives:
        live_through_them()
    else:
        with pytest.raises(DispatcherDied, match="4 times within 10 minutes"):
            live_through_them()


@pytest.mark.parametrize("last", ["close_feed", "drain"])
def test_the_next_dispatcher_gets_what_is_left(last: str) -> None:
    """It is fed the shards that are not completed, in the order they were fed, and then gets the last call repeated."""
    first, second = ScriptedDispatcher(at(1), None), ScriptedDispatcher(at(0, 2, 3))
    started = Started(first, second)
    started.dispatcher.feed([0, 1, 2])
    assert started.dispatcher.poll().completed == (1,)
    started.dispatcher.feed([3])
    getattr(started.dispatcher, last)()
    assert started.dispatcher.poll().completed == (0, 2, 3)
    assert first.asked == [[0, 1, 2], [3], last, "close"]
    assert second.asked == [[0, 2, 3], last]


def test_progress_includes_what_dead_dispatchers_did() -> None:
    """Rows, dollars and refusals of all dispatchers are added up."""
    first = LaneSnapshot("m", 10, 4, 3, 1, in_flight=2, throttled=5, cost=Decimal("0.3"))
    second = LaneSnapshot("m", 6, 2, 2, 0, in_flight=1, throttled=1, cost=Decimal("0.2"))
    started = Started(
        ScriptedDispatcher(replace(at(), lanes=(first,)), None),
        ScriptedDispatcher(replace(at(), lanes=(second,)), None),
        ScriptedDispatcher(replace(at(), lanes=(second,))),
    )
    lanes = [started.dispatcher.poll().lanes for _ in range(3)]
    assert lanes == [
        (first,),
        (LaneSnapshot("m", 10, 6, 5, 1, in_flight=1, throttled=6, cost=Decimal("0.5")),),
        (LaneSnapshot("m", 12, 8, 7, 1, in_flight=1, throttled=7, cost=Decimal("0.7")),),
    ]


def test_a_dispatcher_that_has_ended_is_not_polled_again() -> None:
    """Its process ends before the last shards are committed; it is closed once, and no other dispatcher is started."""
    end = DispatchEnd(interrupted=False, stalled=("m: nobody answers",), notes=())
    ended = ScriptedDispatcher(at(0, end=end), None)
    started = Started(ended)
    started.dispatcher.feed([0, 1])
    assert started.dispatcher.poll() == at(0, end=end)
    assert started.dispatcher.poll() == at(end=end)
    started.dispatcher.close()
    assert ended.asked == [[0, 1], "close"]
