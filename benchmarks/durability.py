"""What it costs to lose nothing, and to go on: `python -m benchmarks.durability`.

First the dispatcher alone, with its journals and with a journal that keeps nothing, in turns, at a pace of 2,000 rows/s
and unpaced. The server is nginx with one worker and a constant answer. Speed is a ratio of medians; at a pace both are
as fast as the pace, and the CPU time of the process tells what journals take.

Then the command that goes on with a run of which a million rows are answered: how long until a server sees the first
new request, and how much memory all its processes hold at most, before that and until the end. Two runs are gone on
with: one killed near its end, so that most shards are committed; and one in which a model has fallen behind the other,
so that each shard has rows to send and none is committed. Memory is weighed in a second go: weighing takes time.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import uvloop

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.ports import JournalPort
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.writer import Journal
from benchmarks.constant_server import constant_server
from benchmarks.dispatch import GeneratedWork, models
from benchmarks.start import server
from benchmarks.stopped_run import MODELS, WasAnswered, stopped_run
from schemas.job import DispatchSpec
from tests.process_memory import resident_of_session

PACE = 2000.0
ASKED_SLOWER = 0.02
ASKED_SECONDS = 10.0
ASKED_MIB = 500
_LOOK_SECONDS = 0.2


class NoJournal:
    """Keeps nothing."""

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """Forget it."""

    def attempt(self, attempt: FailedAttempt) -> None:
        """Forget it."""

    def outcome(self, outcome: RowOutcome) -> None:
        """Forget it."""

    def flush(self) -> None:
        """There is nothing to write."""

    def close(self) -> None:
        """There is nothing to close."""


class Pass(NamedTuple):
    """What one pass of the dispatcher took."""

    rows_per_second: float
    cpu_seconds_per_row: float


def dispatch(urls: Sequence[str], rows: int, pace: float | None, *, keeps: bool) -> Pass:
    """One pass of the dispatcher alone.

    Args:
        pace: rows per second that the endpoints allow together.
        keeps: with real journals, synced as in a run.
    """

    async def main(folder: Path, group: GroupSync) -> Pass:
        def journal(model: str) -> JournalPort:
            return Journal.open(folder / f"{model}.jsonl", ["a", "b"], group) if keeps else NoJournal()

        dispatcher = Dispatcher(
            models(urls, None if pace is None else pace * 60 / len(urls)),
            DispatchSpec(balancer="least_connections"),
            GeneratedWork(rows, journal),
            seed=0,
            keys=lambda name: None,
            wall=time.time,
        )
        started, cpu = time.perf_counter(), time.process_time()
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()
        return Pass(rows / (time.perf_counter() - started), (time.process_time() - cpu) / rows)

    with tempfile.TemporaryDirectory() as folder, GroupSync(enabled=keeps) as group:
        return uvloop.run(main(Path(folder), group))


def compare_journals(rows: int, rounds: int) -> None:
    """Print what journals cost, paced and not."""
    with constant_server(4) as urls:
        for pace, count in ((PACE, rows // 5), (None, rows)):
            passes: dict[bool, list[Pass]] = {True: [], False: []}
            dispatch(urls, count // 5, pace, keeps=True)
            for _ in range(rounds):
                for keeps, done in passes.items():
                    done.append(dispatch(urls, count, pace, keeps=keeps))
            on, off = (Pass(*map(statistics.median, zip(*passes[keeps], strict=True))) for keeps in (True, False))
            print(f"{f'at {pace:,.0f} rows/s' if pace else 'unpaced'}, {count:,} rows, {rounds} rounds")
            for name, median in (("journal", on), ("none", off)):
                print(
                    f"  {name:<8}{median.rows_per_second:8,.0f} rows/s   {median.cpu_seconds_per_row * 1e6:5.0f} us CPU"
                )
            print(f"  slower by {1 - on.rows_per_second / off.rows_per_second:.1%}, asked {ASKED_SLOWER:.0%} at a pace")


class Resumed(NamedTuple):
    """What going on took."""

    first_request: float
    """Seconds from the command's start."""
    wall: float
    before: int
    """Most bytes held until the first request; 0 where nobody weighed."""
    most: int
    """Most bytes held in all."""


def resume(stopped: Path, engine: str, rows: int, *, weigh: bool) -> Resumed:
    """Go on with a copy of the run, in the folder of its job."""
    with server() as running, tempfile.TemporaryDirectory(dir=stopped.parent) as copy:
        folder = Path(copy) / "run"
        shutil.copytree(stopped, folder)
        # What the copy left to be written would hold up the run's own syncs.
        os.sync()
        url = f"http://127.0.0.1:{running.server_address[1]}/v1"
        command = [sys.executable, "-m", "jobs.cli", "run", str(folder / "job.yaml"), "--json"]
        for setting in (f"engine={engine}", *(f"models.{i}.endpoints.0.url={url}" for i in range(len(MODELS)))):
            command += ["--set", setting]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        before = most = 0
        while process.poll() is None:
            time.sleep(_LOOK_SECONDS)
            if weigh:
                most = max(most, resident_of_session(process.pid))
                before = most if running.first_post is None else before
        wall = time.perf_counter() - started
        if process.returncode != 0 or running.first_post is None:
            raise SystemExit(f"the command ended with status {process.returncode}")
        with (folder / "results.jsonl").open("rb") as results:
            assert sum(1 for _ in results) == rows
        return Resumed(running.first_post - started, wall, before, most)


def runs(rows: int, left: int) -> Iterator[tuple[str, WasAnswered]]:
    """The runs to go on with, of `rows + left` rows."""
    yield "killed near the end", lambda row, model: row < rows
    every = (rows + left) // left
    yield "one model behind", lambda row, model: model == "weak" or row % every >= 2


def compare_resuming(rows: int, left: int, rounds: int, engines: Sequence[str]) -> None:
    """Print what going on takes."""
    print(f"going on with {rows:,} rows answered and {left:,} to send; asked {ASKED_SECONDS:g} s, {ASKED_MIB} MiB")
    for name, was_answered in runs(rows, left):
        with tempfile.TemporaryDirectory() as folder:
            stopped = Path(folder) / "stopped"
            stopped.mkdir()
            stopped_run(stopped, rows + left, was_answered)
            for engine in engines:
                timed = [resume(stopped, engine, rows + left, weigh=False) for _ in range(rounds)]
                weighed = resume(stopped, engine, rows + left, weigh=True)
                print(
                    f"  {name}, {engine:<7} first request {_median(timed, lambda r: r.first_request):5.1f} s"
                    f"   end {_median(timed, lambda r: r.wall):5.1f} s"
                    f"   memory before {weighed.before / 2**20:,.0f} MiB, in all {weighed.most / 2**20:,.0f} MiB"
                )


def _median(resumed: Sequence[Resumed], figure: Callable[[Resumed], float]) -> float:
    return statistics.median(map(figure, resumed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["journal", "resume"], help="left out: both")
    parser.add_argument("--rows", type=int, default=50_000, help="a pass of the dispatcher, unpaced; a fifth at a pace")
    parser.add_argument("--answered", type=int, default=1_000_000)
    parser.add_argument("--left", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["inline", "ray"])
    arguments = parser.parse_args()
    if arguments.part != "resume":
        compare_journals(arguments.rows, arguments.rounds)
    if arguments.part != "journal":
        compare_resuming(arguments.answered, arguments.left, arguments.rounds, arguments.engines)


if __name__ == "__main__":
    main()
