"""What journals cost, and what it takes to resume a large run: `python -m benchmarks.durability [journal | resume]`.

`journal` runs the dispatcher alone, by turns with its journals and with a journal that writes nothing: at a pace of
2,000 rows/s, and unpaced. The server is nginx with one worker and a constant answer. The figures are medians of the
rounds. At a pace both run as fast as the pace, so the CPU time for each row shows what the journals take.

`resume` runs the command that resumes a run in which a million rows are answered. It prints the seconds until a server
receives the first new request, the seconds until the command ends, and the peak memory of all processes, before the
first request and in all. It resumes two runs: one that was killed near its end, so that most shards are committed; and
one in which one model is behind the other, so that each shard has rows to send and none is committed. Memory is
measured in a second run of the command, because measuring takes time.
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
TARGET_SLOWDOWN = 0.02
TARGET_SECONDS = 10.0
TARGET_MIB = 500
_SAMPLE_SECONDS = 0.2


class NoJournal:
    """A journal that writes nothing."""

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """Write nothing."""

    def attempt(self, attempt: FailedAttempt) -> None:
        """Write nothing."""

    def outcome(self, outcome: RowOutcome) -> None:
        """Write nothing."""

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Pass(NamedTuple):
    """The speed and the CPU time of one pass of the dispatcher."""

    rows_per_second: float
    cpu_seconds_per_row: float


def dispatch(urls: Sequence[str], rows: int, pace: float | None, *, journaled: bool) -> Pass:
    """One pass of the dispatcher alone.

    Args:
        pace: rows per second that the endpoints allow together; `None`: no limit.
        journaled: write journals with fsync, as a run does; else write nothing.
    """

    async def main(folder: Path, group: GroupSync) -> Pass:
        def journal(model: str) -> JournalPort:
            return Journal.open(folder / f"{model}.jsonl", ["a", "b"], group) if journaled else NoJournal()

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

    with tempfile.TemporaryDirectory() as folder, GroupSync(enabled=journaled) as group:
        return uvloop.run(main(Path(folder), group))


def compare_journals(rows: int, rounds: int) -> None:
    """Print speed and CPU time with journals and without, at a pace and unpaced."""
    with constant_server(4) as urls:
        for pace, count in ((PACE, rows // 5), (None, rows)):
            passes: dict[bool, list[Pass]] = {True: [], False: []}
            dispatch(urls, count // 5, pace, journaled=True)
            for _ in range(rounds):
                for journaled, done in passes.items():
                    done.append(dispatch(urls, count, pace, journaled=journaled))
            on, off = (
                Pass(*map(statistics.median, zip(*passes[journaled], strict=True))) for journaled in (True, False)
            )
            print(f"{f'at {pace:,.0f} rows/s' if pace else 'unpaced'}, {count:,} rows, {rounds} rounds")
            for name, median in (("journal", on), ("no journal", off)):
                cpu = f"{median.cpu_seconds_per_row * 1e6:5.0f} us CPU a row"
                print(f"  {name:<11}{median.rows_per_second:8,.0f} rows/s   {cpu}")
            slower = 1 - on.rows_per_second / off.rows_per_second
            print(f"  slower with journals by {slower:.1%}; target at a pace: at most {TARGET_SLOWDOWN:.0%}")


class Resumed(NamedTuple):
    """What one command that resumed a run took."""

    first_request: float
    """Seconds from the command's start to the first request that the server received."""
    wall: float
    """Seconds from the command's start to its end."""
    before: int
    """Peak memory in bytes until the first request; 0 if memory was not measured."""
    most: int
    """Peak memory in bytes until the end; 0 if memory was not measured."""


def resume(stopped: Path, engine: str, rows: int, *, measure_memory: bool) -> Resumed:
    """Resume a copy of the run in `stopped`, whose job has `rows` rows."""
    with server() as running, tempfile.TemporaryDirectory(dir=stopped.parent) as copy:
        folder = Path(copy) / "run"
        shutil.copytree(stopped, folder)
        # Otherwise the kernel would write the copied files while the run waits for its own fsync.
        os.sync()
        url = f"http://127.0.0.1:{running.server_address[1]}/v1"
        command = [sys.executable, "-m", "jobs.cli", "run", str(folder / "job.yaml"), "--json"]
        for setting in (f"engine={engine}", *(f"models.{i}.endpoints.0.url={url}" for i in range(len(MODELS)))):
            command += ["--set", setting]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        before = most = 0
        while process.poll() is None:
            time.sleep(_SAMPLE_SECONDS)
            if measure_memory:
                most = max(most, resident_of_session(process.pid))
                before = most if running.first_post is None else before
        wall = time.perf_counter() - started
        if process.returncode != 0 or running.first_post is None:
            raise SystemExit(f"the command ended with status {process.returncode}")
        with (folder / "results.jsonl").open("rb") as results:
            assert sum(1 for _ in results) == rows
        return Resumed(running.first_post - started, wall, before, most)


def runs(rows: int, left: int) -> Iterator[tuple[str, WasAnswered]]:
    """The runs to resume, by name: each has `rows + left` rows, of which about `left` are still to send."""
    yield "killed near the end", lambda row, model: row < rows
    every = (rows + left) // left
    yield "one model behind", lambda row, model: model == "weak" or row % every >= 2


def compare_resuming(rows: int, left: int, rounds: int, engines: Sequence[str]) -> None:
    """Print what it takes to resume each run, on each engine."""
    print(f"resume with {rows:,} rows answered and {left:,} to send; target {TARGET_SECONDS:g} s, {TARGET_MIB} MiB")
    for name, was_answered in runs(rows, left):
        with tempfile.TemporaryDirectory() as folder:
            stopped = Path(folder) / "stopped"
            stopped.mkdir()
            stopped_run(stopped, rows + left, was_answered)
            for engine in engines:
                timed = [resume(stopped, engine, rows + left, measure_memory=False) for _ in range(rounds)]
                measured = resume(stopped, engine, rows + left, measure_memory=True)
                print(
                    f"  {name}, {engine:<7} first request {_median(timed, lambda r: r.first_request):5.1f} s"
                    f"   end {_median(timed, lambda r: r.wall):5.1f} s"
                    f"   memory before {measured.before / 2**20:,.0f} MiB, in all {measured.most / 2**20:,.0f} MiB"
                )


def _median(resumed: Sequence[Resumed], figure: Callable[[Resumed], float]) -> float:
    return statistics.median(map(figure, resumed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["journal", "resume"], help="what to measure; left out: both")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of an unpaced pass; a fifth of them at a pace")
    parser.add_argument("--answered", type=int, default=1_000_000, help="answered rows of a run to resume")
    parser.add_argument("--left", type=int, default=10_000, help="rows that a resumed run still has to send")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["inline", "ray"])
    arguments = parser.parse_args()
    if arguments.part != "resume":
        compare_journals(arguments.rows, arguments.rounds)
    if arguments.part != "journal":
        compare_resuming(arguments.answered, arguments.left, arguments.rounds, arguments.engines)


if __name__ == "__main__":
    main()
