"""What a kill, a Ctrl-C and a second start leave of a run, counted by a server that belongs to nobody."""

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.runs.journal.replay import Replay, replay
from tests.e2e.commands import Command
from tests.e2e.ledger_server import Ledger, content, ledger_server

pytestmark = pytest.mark.real

FILES = 3
ROWS_PER_FILE = 150
ROWS = FILES * ROWS_PER_FILE

# How long an answer took and how often it was asked for are all that a kill may change.
_CHANGES = re.compile(rb'"latency_seconds":[^,]*,"attempts":\d+,')


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One server for all: its address is in the results, which are compared."""
    with ledger_server(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The results of a run that nobody disturbed."""
    broken = BrokenRun(tmp_path_factory.mktemp("unbroken"), ledger, "inline", at_once=16)
    assert broken.start().wait() == 0
    return broken.results.read_bytes()


class BrokenRun:
    """A job of 450 rows in three shards, half of them for either model, that is started again and again."""

    def __init__(self, folder: Path, ledger: Ledger, engine: str, *, at_once: int) -> None:
        self.ledger = ledger
        self.first = len(ledger)
        self.job = folder / "job.yaml"
        self.results = folder / "results.jsonl"
        self.directory = folder / "results.jsonl.run"
        self.commands: list[Command] = []
        self.answered: list[tuple[int, set[int]]] = []
        """After each kill: requests that the server had seen, and rows whose answer was stored."""
        for file in range(FILES):
            rows = range(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE)
            lines = [json.dumps({"id": f"r{row}", "prompt": f"What is in row {row:05}?"}) for row in rows]
            (folder / f"prompts-{file}.jsonl").write_text("\n".join(lines))
        endpoint = {"url": ledger.url, "limits": {"max_in_flight": at_once // 2}}
        job = {
            "engine": engine,
            "input": {"path": "prompts-*.jsonl"},
            "router": {"kind": "random"},
            "models": [
                {"name": "small", "price": {"input": 0.5, "output": 1.5}, "endpoints": [endpoint]},
                {"name": "large", "price": {"input": 5, "output": 15}, "endpoints": [endpoint]},
            ],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": "results.jsonl"},
        }
        self.job.write_text(json.dumps(job))

    def start(self, *settings: str) -> Command:
        """The same command, every time."""
        self.commands.append(Command(self.job, self.job.with_name(f"start-{len(self.commands)}"), *settings))
        return self.commands[-1]

    @property
    def sent(self) -> int:
        """Requests that the server has seen."""
        return len(self.ledger) - self.first

    def journals(self) -> list[Replay]:
        """What was stored of the requests so far."""
        return [replay(path) for path in self.directory.glob("journal/*/*.jsonl")]

    def report(self) -> dict[str, Any]:
        """The stored report."""
        return dict(json.loads((self.directory / "report.json").read_bytes()))

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        for command in self.commands:
            command.kill_all()


@pytest.fixture
def broken_run(tmp_path: Path, ledger: Ledger, request: pytest.FixtureRequest) -> Iterator[BrokenRun]:
    engine, at_once = request.param
    run = BrokenRun(tmp_path, ledger, engine, at_once=at_once)
    yield run
    run.end()


def _file(name: str) -> Callable[[BrokenRun], bool]:
    return lambda run: (run.directory / name).exists()


def _sent(requests: int) -> Callable[[BrokenRun], bool]:
    return lambda run: run.sent >= requests


# In the order in which a run comes to them; the counts are over all sittings.
EARLY = [_file("run.json"), _file("scored/00000.parquet"), _file("plan.json")]
MIDDLE = [_sent(1), _sent(100), _file("committed/00000.json"), _sent(350)]
LATE = [_sent(ROWS - 5)]


@pytest.mark.parametrize(
    ("broken_run", "instants"),
    [
        pytest.param(("inline", 8), [*EARLY, *MIDDLE, *LATE], id="inline"),
        pytest.param(("ray", 8), [*EARLY[1:2], *MIDDLE[:3], *LATE], id="ray"),
    ],
    indirect=["broken_run"],
)
def test_a_run_killed_at_any_instant_goes_on(
    broken_run: BrokenRun, instants: list[Callable[[BrokenRun], bool]], unbroken: bytes
) -> None:
    """After every SIGKILL the same command goes on; at the end no row is lost, doubled, or paid twice unsaid."""
    run = broken_run
    for instant in instants:
        command = run.start()
        command.until(lambda: instant(run))  # noqa: B023  called before the next turn
        command.kill()
        _forget_nothing(run)
    command = run.start()
    assert command.wait() == 0, command.stderr
    _same_as(unbroken, run)
    assert json.loads(command.stdout) == run.report()


@pytest.mark.parametrize("broken_run", [pytest.param(("ray", 8), id="ray")], indirect=True)
def test_a_run_whose_dispatcher_is_killed_goes_on_by_itself(broken_run: BrokenRun, unbroken: bytes) -> None:
    """Another one sends the rest, the report says so and lists what was in flight, and nothing outlives the command."""
    run = broken_run
    command = run.start()
    command.until(lambda: run.sent >= 200)
    (dispatcher,) = [pid for pid, line in command.processes().items() if line.startswith("ray::DispatcherActor")]
    os.kill(dispatcher, signal.SIGKILL)
    _forget_nothing(run)
    assert command.wait() == 0, command.stderr
    assert "Traceback" not in command.stderr
    assert command.leaves_nothing(), command.processes()
    _same_as(unbroken, run)
    assert "the dispatcher's process died and was started again once" in run.report()["notes"]


@pytest.mark.parametrize("broken_run", [pytest.param(("ray", 4), id="ray")], indirect=True)
def test_what_a_killed_driver_left_behind_is_waited_for(broken_run: BrokenRun, unbroken: bytes) -> None:
    """Ray takes seconds to end a dispatcher whose driver is gone; a run that begins at once waits, and goes on."""
    run = broken_run
    command = run.start()
    command.until(lambda: run.sent >= 50)
    command.kill_driver()
    _forget_nothing(run)
    # In this process, because it is there sooner than a new Ray would be.
    command = run.start("engine=inline")
    assert command.wait() == 0, command.stderr
    _same_as(unbroken, run)


@pytest.mark.parametrize(
    ("broken_run", "number"),
    [
        pytest.param(("inline", 2), signal.SIGINT, id="inline"),
        pytest.param(("ray", 2), signal.SIGINT, id="ray"),
        pytest.param(("ray", 2), signal.SIGHUP, id="ray, its terminal closed"),
    ],
    indirect=["broken_run"],
)
def test_ctrl_c_drains_and_a_second_start_is_refused(
    broken_run: BrokenRun, number: signal.Signals, unbroken: bytes
) -> None:
    """While a run works on its directory another is refused; interrupted, it keeps what was in flight, and goes on."""
    run = broken_run
    command = run.start()
    command.until(lambda: run.sent >= 50)
    other = run.start()
    assert other.wait() == 2
    assert "works on it" in other.stderr

    command.signal(number)
    assert command.wait() == 130
    assert command.stderr.splitlines()[-1].startswith("batchrouter: interrupted")
    assert command.leaves_nothing(), command.processes()
    assert run.sent < ROWS, "it was interrupted too late to say anything"
    assert not [row for journal in run.journals() for row in journal.ambiguous]

    command = run.start()
    assert command.wait() == 0, command.stderr
    _same_as(unbroken, run)
    assert run.report()["ambiguous"] == []
    assert sorted(run.ledger.rows(run.first)) == list(range(ROWS))


def _forget_nothing(run: BrokenRun) -> None:
    """Note what is answered now: `_same_as` finds out whether any of it was sent again."""
    answered = {row for journal in run.journals() for row in journal.ok}
    # Counted after reading: whatever the journals held by then was sent before.
    run.answered.append((len(run.ledger), answered))


def _same_as(unbroken: bytes, run: BrokenRun) -> None:
    """Everything that holds of a run that has come to its end, however often it was broken."""
    raw = run.results.read_bytes()
    rows = [json.loads(line) for line in raw.splitlines()]
    assert [row["row"] for row in rows] == list(range(ROWS))
    assert [row["id"] for row in rows] == [f"r{row}" for row in range(ROWS)]
    assert [row["content"] for row in rows] == [content(row) for row in range(ROWS)]
    assert _CHANGES.sub(b"", raw) == _CHANGES.sub(b"", unbroken)

    times_sent = Counter(run.ledger.rows(run.first))
    assert times_sent.keys() == set(range(ROWS))
    ambiguous = Counter(row["row"] for row in run.report()["ambiguous"])
    assert {row for row, times in times_sent.items() if times - 1 > ambiguous[row]} == set()
    for seen, answered in run.answered:
        assert answered.isdisjoint(run.ledger.rows(seen))
