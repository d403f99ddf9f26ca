"""Scores many prompts with Ray actors, kills one actor on the way, and checks memory and every score.

    python -m benchmarks.scoring_at_scale [--rows N ...] [--router KIND] [--words N] [--actors N] [--no-kill]

It reads, scores, plans and routes as a run does, but sends no requests. The run has a process group of its own;
its memory is the sum of the proportional shares of all its processes. Prompts are drawn from a seed. At the end each
row must have exactly one score, and a sample of the prompts, scored again in this process, must have the same scores to
1e-5; otherwise the benchmark fails. The columns:

    peak MiB by quarter, at the end   peak memory while each quarter of the parts was written, and after the last part
    killed at                         how many parts were stored when an actor was killed
    missing, twice                    rows without a score, rows with more than one
    off by at most                    largest difference between a stored score and the same prompt scored again
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from batch.dispatch.dispatcher import DispatchEnd
from batch.reading.sources import find_sources, fingerprint_sources
from batch.routers.registry import build_router, router_fingerprint
from batch.running.dispatch_thread import DispatchPlan, DispatchState
from batch.running.engine import DispatchHandle
from batch.running.pipeline import Pipeline
from batch.running.ray.engine import RayEngine
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import fingerprint
from batch.runs.layout import run_path
from batch.runs.parts import read_part
from benchmarks.scoring import WORDS
from jobs.environment import ENVIRONMENT, end_process, monotonic, pause, ray_folders, set_library_defaults
from jobs.files.yaml_specs import load_job
from jobs.resolve import resolve_job
from tests.process_memory import resident_of_session

SAMPLE = 512
SAMPLE_EVERY_SECONDS = 0.5
TOLERANCE = 1e-5
QUARTERS = 4
MIB = 1 << 20


def prompt(row: int, words: int) -> str:
    """A prompt of half to one and a half times `words` words, drawn from the row's number."""
    chance = random.Random(row)
    return f"{row} " + " ".join(chance.choices(WORDS, k=chance.randint(words // 2, words * 3 // 2)))


def write_job(folder: Path, rows: int, router: str, words: int, actors: int | None) -> Path:
    """Write the input and a job for it; return the job's path."""
    with (folder / "prompts.jsonl").open("w") as file:
        file.writelines(json.dumps({"id": f"r{row}", "prompt": prompt(row, words)}) + "\n" for row in range(rows))
    job = {
        "input": {"path": "prompts.jsonl"},
        "router": {"kind": router, "actors": actors or "auto"},
        "models": [{"name": name, "endpoints": [{"url": "http://127.0.0.1:9/v1"}]} for name in ("weak", "strong")],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


class _NoDispatch:
    """A dispatcher that sends nothing, and ends when its feed is closed."""

    def __init__(self) -> None:
        self._end: DispatchEnd | None = None

    def feed(self, shards: Sequence[int]) -> None:
        """Ignore them: the shards stay routed."""

    def close_feed(self) -> None:
        """Over."""
        self._end = DispatchEnd(interrupted=True, stalled=(), notes=())

    def drain(self) -> None:
        """Over."""
        self.close_feed()

    def poll(self) -> DispatchState:
        """No progress, and the end, once the feed is closed."""
        return DispatchState((), (), None, None, self._end)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class _Engine(RayEngine):
    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:  # type: ignore[override]  # any will do
        return _NoDispatch()


def score(path: Path) -> None:
    """Run the job up to its first request."""
    set_library_defaults()
    spec = load_job(path)
    engine = _Engine(
        address=None,
        actors=spec.router.actors,
        environment=ENVIRONMENT,
        pause=pause,
        end_process=end_process,
        folders=ray_folders(),
    )
    engine.start()
    sources = find_sources(spec.input)
    asked = fingerprint(spec, fingerprint_sources(sources), router_fingerprint(spec.router))
    with RunDirectory.open(run_path(spec.output), asked, job=spec.name, created="", version="") as directory:
        Pipeline(resolve_job(spec), sources, directory, engine, monotonic).run()
    engine.close()


@dataclass
class ObservedRun:
    """What was measured while a run scored its rows."""

    seconds: float
    most: Sequence[int]
    """Peak memory of all its processes in bytes, while each quarter of the parts was written; last, after all parts."""
    killed: int | None
    """How many parts were stored when an actor was killed; `None`: no actor was killed."""


def watch(path: Path, *, kill: bool) -> ObservedRun:
    """Start the run, sample its memory, and with `kill` kill one scoring actor when a third of the parts is stored."""
    parts = path.parent / "results.jsonl.run" / "scored"
    manifest = path.parent / "results.jsonl.run" / "run.json"
    began, most, killed = time.monotonic(), [0] * (QUARTERS + 1), None
    with (path.parent / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scoring_at_scale", "--score", str(path)],
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        while process.poll() is None:
            time.sleep(SAMPLE_EVERY_SECONDS)
            done = len(list(parts.glob("*.parquet")))
            shards = len(json.loads(manifest.read_text())["shards"] or ()) if manifest.exists() else 0
            quarter = QUARTERS * done // max(shards, 1)
            most[quarter] = max(most[quarter], resident_of_session(process.pid))
            if kill and killed is None and done and 3 * done >= shards:
                actor = _actor_of(process.pid)
                if actor is not None:
                    os.kill(actor, signal.SIGKILL)
                    killed = done
    if process.returncode != 0:
        raise SystemExit((path.parent / "said").read_text())
    return ObservedRun(time.monotonic() - began, most, killed)


def _actor_of(leader: int) -> int | None:
    """The process id of a scoring actor that descends from the process `leader`; `None`: there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"RouterActor" in (entry / "cmdline").read_bytes() and leader in _parents(int(entry.name)):
                return int(entry.name)
        except OSError:
            continue
    return None


def _parents(pid: int) -> Iterator[int]:
    """The process ids of the parent, its parent, and so on."""
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def account(path: Path, rows: int, words: int) -> tuple[int, int, float]:
    """How many rows have no score, how many have several, and the largest error in a sample of the scores."""
    spec = load_job(path)
    times = np.zeros(rows, int)
    stored = np.full(rows, np.nan)
    for part in sorted((run_path(spec.output) / "scored").glob("*.parquet")):
        table = read_part(part, ["row", "score"])
        there = table["row"].to_numpy()
        np.add.at(times, there, 1)
        stored[there] = table["score"].to_numpy()
    sample = random.Random(0).sample(range(rows), min(SAMPLE, rows))
    router = build_router(spec.router, tuple(model.name for model in spec.models), spec.seed)
    again = router.score([prompt(row, words) for row in sample])
    expected = again[:, -1] - again[:, 0] if len(router.models) > 1 else again[:, 0]
    off = float(np.abs(stored[sample] - expected).max())
    return int((times == 0).sum() + np.isnan(stored[times > 0]).sum()), int((times > 1).sum()), off


def main() -> None:
    """Score each number of rows in turn and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--router", default="correctness")
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--actors", type=int, default=None)
    parser.add_argument("--no-kill", dest="kill", action="store_false")
    parser.add_argument("--score", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.score is not None:
        score(options.score)
        return
    print(f"{options.router}, prompts of {options.words} words")
    print("    rows  seconds   rows/s  peak MiB by quarter, at the end  killed at  missing  twice  off by at most")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = write_job(Path(folder), rows, options.router, options.words, options.actors)
            seen = watch(path, kill=options.kill)
            missing, twice, off = account(path, rows, options.words)
        peaks = " ".join(f"{most / MIB:5.0f}" for most in seen.most)
        killed = "-" if seen.killed is None else f"part {seen.killed}"
        print(
            f"{rows:8,} {seen.seconds:8.0f} {rows / seen.seconds:8.0f} {peaks:>32} {killed:>10} "
            f"{missing:8} {twice:6} {off:15.1e}",
            flush=True,
        )
        if missing or twice or off > TOLERANCE:
            raise SystemExit("some scores are missing, duplicated or wrong")


if __name__ == "__main__":
    main()
