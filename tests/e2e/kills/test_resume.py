"""What a kill, a Ctrl-C and a second start leave of a run, counted by a server that belongs to nobody."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batch.runs.journal.replay import replay
from tests.e2e.kills.harness import SOME_NOT_OK, WRONG, Job, ending
from tests.e2e.ledger_server import Ledger, content, ledger_server

pytestmark = pytest.mark.real

ROWS = 450
# A run that is to be interrupted sends two rows at a time, and has so many that a second start is refused long before.
MANY_ROWS = 1500
INTERRUPTED = 130

NewJob = Callable[..., Job]
Unbroken = dict[int, dict[str, bytes]]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One server for all: its address is in the results, which are compared."""
    with ledger_server(tmp_path_factory.mktemp("ledger")) as running:
        yield running


def job_of(folder: Path, ledger: Ledger, rows: int, engine: str, at_once: int) -> Job:
    return Job(folder, ledger, rows, engine=engine, format="jsonl", at_once=at_once)


@pytest.fixture(scope="module")
def unbroken(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """The results of runs that nobody disturbed, by their number of rows; every answer is the right one."""
    results = {}
    for rows in (ROWS, MANY_ROWS):
        with ending(job_of(tmp_path_factory.mktemp("unbroken"), ledger, rows, "inline", 64)) as job:
            job.finish()
            results[rows] = job.results
            found = [json.loads(line) for line in (job.folder / "results.jsonl").read_text().splitlines()]
        assert [row["row"] for row in found] == list(range(rows))
        assert {row["status"] for row in found} == {"ok", "failed", "invalid"}
        for row in found:
            if row["status"] == "ok":
                assert row["content"] == content(job.sources[row["row"]])
    return results


@pytest.fixture
def new_job(tmp_path: Path, ledger: Ledger) -> Iterator[NewJob]:
    """Makes jobs; nothing of them runs on after the test."""
    jobs: list[Job] = []

    def make(engine: str, rows: int = ROWS, at_once: int = 8) -> Job:
        jobs.append(job_of(tmp_path / f"job-{len(jobs)}", ledger, rows, engine, at_once))
        return jobs[-1]

    yield make
    for job in jobs:
        job.end()


def _file(name: str) -> Callable[[Job], bool]:
    return lambda job: (job.directory / name).exists()


def _sent(share: float) -> Callable[[Job], bool]:
    """Of the requests that an unbroken run makes, one for each row whose answer no other row has."""
    return lambda job: job.sent >= share * len(set(job.sources.values()))


# In the order in which a run comes to them; the requests of all sittings count.
EARLY = [_file("run.json"), _file("scored/00000.parquet"), _file("plan.json")]
MIDDLE = [_sent(0.0001), _sent(0.25), _file("committed/00000.json"), _sent(0.8)]
LATE = [_sent(0.99)]


# What a run on Ray leaves behind that one in a single process does not: scoring actors, and a dispatcher.
@pytest.mark.parametrize(
    ("engine", "instants"),
    [
        pytest.param("inline", [*EARLY, *MIDDLE, *LATE], id="inline"),
        pytest.param("ray", [*EARLY[1:2], *MIDDLE[:3], *LATE], id="ray"),
    ],
)
def test_a_run_killed_at_any_instant_goes_on(
    new_job: NewJob, engine: str, instants: list[Callable[[Job], bool]], unbroken: Unbroken
) -> None:
    """After every SIGKILL the same command resumes; at the end no row is lost, doubled, or paid twice unsaid."""
    job = new_job(engine)
    for instant in instants:
        command = job.start()
        command.until(lambda: instant(job))  # noqa: B023  called before the next turn
        command.kill()
        job.note()
    command = job.start()
    assert command.wait() == SOME_NOT_OK, command.stderr
    _same_as(unbroken, job)
    assert json.loads(command.stdout) == job.report()


def test_a_run_whose_dispatcher_is_killed_goes_on_by_itself(new_job: NewJob, unbroken: Unbroken) -> None:
    """Another one sends the rest, the report says so and lists what was in flight, and nothing outlives the command."""
    job = new_job("ray")
    command = job.start()
    command.until(lambda: _sent(0.5)(job))
    (dispatcher,) = [pid for pid, line in command.processes().items() if line.startswith("ray::DispatcherActor")]
    os.kill(dispatcher, signal.SIGKILL)
    job.note()
    assert command.wait() == SOME_NOT_OK, command.stderr
    assert "Traceback" not in command.stderr
    assert command.leaves_nothing(), command.processes()
    _same_as(unbroken, job)
    assert "the dispatcher's process died and was started again once" in job.report()["notes"]


def test_what_a_killed_driver_left_behind_is_waited_for(new_job: NewJob, unbroken: Unbroken) -> None:
    """Ray takes seconds to end a dispatcher whose driver is gone; a run that begins at once waits, and goes on."""
    job = new_job("ray", at_once=4)
    command = job.start()
    command.until(lambda: _sent(0.1)(job))
    command.kill_driver()
    job.note()
    # In this process, because it is there sooner than a new Ray would be.
    command = job.start("engine=inline")
    assert command.wait() == SOME_NOT_OK, command.stderr
    _same_as(unbroken, job)


@pytest.mark.parametrize(
    ("engine", "number"),
    [
        pytest.param("inline", signal.SIGINT, id="inline"),
        pytest.param("ray", signal.SIGINT, id="ray"),
        pytest.param("ray", signal.SIGHUP, id="ray, its terminal closed"),
    ],
)
def test_ctrl_c_drains_and_a_second_start_is_refused(
    new_job: NewJob, engine: str, number: signal.Signals, unbroken: Unbroken
) -> None:
    """While a run works on its directory another is refused; interrupted, it keeps what was in flight, and goes on."""
    job = new_job(engine, MANY_ROWS, at_once=2)
    # The tests may run under nohup; then a command that they start would take no notice of a closed terminal.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        command = job.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    command.until(lambda: _sent(0.1)(job))
    other = job.start("engine=inline")
    assert other.wait() == WRONG
    assert "works on it" in other.stderr

    command.signal(number)
    assert command.wait() == INTERRUPTED
    assert command.stderr.splitlines()[-1].startswith("batchrouter: interrupted")
    assert command.leaves_nothing(), command.processes()
    assert not _sent(1)(job), "it was interrupted too late to say anything"
    assert not [row for path in job.directory.glob("journal/*/*.jsonl") for row in replay(path).ambiguous]

    job.note()
    job.path.write_text(job.path.read_text().replace('"max_in_flight": 1', '"max_in_flight": 32'))
    job.finish()
    _same_as(unbroken, job)
    assert job.report()["ambiguous"] == []


def _same_as(unbroken: Unbroken, job: Job) -> None:
    """Everything that holds of a run that has come to its end, however often it was broken."""
    account = job.account(unbroken[job.rows])
    assert account.faults == 0, account
