"""Scores many prompts by Ray actors, kills one of them on the way, and looks at memory and at every score.

    python -m benchmarks.scoring_at_scale [--rows N ...] [--router KIND] [--words N] [--actors N] [--no-kill]

Everything is a real run but the requests: reading, scoring, planning and routing, in a process group of its own, whose
memory is the sum of all its processes' proportional shares. Prompts are drawn from a seed. In the end each row must
have one score, and a sample of the prompts, scored anew in this process, the same scores to 1e-5.
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
from jobs.environment import (
    ENVIRONMENT,
    end_process,
    monotonic,
    pause,
    ray_folders,
    resolve_job,
    set_library_defaults,
)
from jobs.files.yaml_specs import load_job
from tests.process_memory import resident_of_session

SAMPLE = 512
LOOK_EVERY_SECONDS = 0.5
TOLERANCE = 1e-5
QUARTERS = 4
MIB = 1 << 20


def prompt(row: int, words: int) -> str:
    """A prompt of half to one and a half times so many words."""
    chance = random.Random(row)
    return f"{row} " + " ".join(chance.choices(WORDS, k=chance.randint(words // 2, words * 3 // 2)))


def write_job(folder: Path, rows: int, router: str, words: int, actors: int | None) -> Path:
    """The input, and a job over it; return the job's path."""
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


class _NothingIsSent:
    """Ends when nothing more comes."""

    def __init__(self) -> None:
        self._end: DispatchEnd | None = None

    def feed(self, shards: Sequence[int]) -> None:
        """They stay routed."""

    def close_feed(self) -> None:
        """Over."""
        self._end = DispatchEnd(interrupted=True, stalled=(), notes=())

    def drain(self) -> None:
        """Over."""
        self.close_feed()

    def poll(self) -> DispatchState:
        """Where it stands."""
        return DispatchState((), (), None, None, self._end)

    def close(self) -> None:
        """Nothing is held."""


class _Engine(RayEngine):
    def dispatcher(self, plan: DispatchPlan) -> DispatchHandle:  # type: ignore[override]  # any will do
        return _NothingIsSent()


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
class Watched:
    """What was seen of a run."""

    seconds: float
    most: Sequence[int]
    """Bytes resident in all its processes at most, while each quarter of its parts was made; then to the end."""
    killed: int | None
    """Parts that were stored when an actor was killed; `None`: none was."""


def watch(path: Path, *, kill: bool) -> Watched:
    """Start the run, look at its memory, and kill one scoring actor when a third of the work is done."""
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
            time.sleep(LOOK_EVERY_SECONDS)
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
    return Watched(time.monotonic() - began, most, killed)


def _actor_of(leader: int) -> int | None:
    """A scoring actor that `leader`, or what that started, has started; `None`: there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"RouterActor" in (entry / "cmdline").read_bytes() and leader in _parents(int(entry.name)):
                return int(entry.name)
        except OSError:
            continue
    return None


def _parents(pid: int) -> Iterator[int]:
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        yield pid


def account(path: Path, rows: int, words: int) -> tuple[int, int, float]:
    """Rows without a score, rows with several, and how far the scores of a sample are off at most."""
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
            raise SystemExit("some scores are not what they should be")


if __name__ == "__main__":
    main()
