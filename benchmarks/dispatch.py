"""A whole job of short prompts, and its dispatcher alone, beside a bare aiohttp loop: `python -m benchmarks.dispatch`.

The server is nginx with one worker and a constant answer. The peer is the least that can be done: 128 coroutines
that post the same payloads and parse the answers, with no limits, retries, balancing, journal or output. Machines
drift within a minute, so each figure is divided by the mean of the peer just before and just after it, and the median
ratio of all rounds is printed, with all of them behind it.

"whole job" is a run's own wall time, from finding its input to its last committed part; "the command" adds what comes
before and after in the process: imports, Ray's start and end, the report.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import uvloop

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.ports import History, JournalPort
from batch.dispatch.request import Request
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.writer import Journal
from benchmarks.constant_server import constant_server
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.process_memory import resident_of_session

IN_FLIGHT = 128
QUESTIONS = (
    "What is {a} times {b}?",
    "Which is larger, {a} or {b}, and by how much?",
    "Write the number {a} in Roman numerals, then do the same for {b}.",
    "If a train leaves at {a} past noon and takes {b} minutes, when does it arrive?",
)


def prompt(row: int) -> str:
    """A short prompt of its own for every row."""
    return QUESTIONS[row % len(QUESTIONS)].format(a=row % 997 + 3, b=row // 7 + 2)


def body(row: int) -> bytes:
    """The request that the job sends for a row, without its model."""
    message = {"messages": [{"role": "user", "content": prompt(row)}], "temperature": 0.7}
    return json.dumps(message, separators=(",", ":")).encode()


def bare_aiohttp(urls: Sequence[str], rows: int) -> float:
    """Rows per second of a bare loop."""
    import aiohttp
    import orjson

    bodies = [b'{"model":"m",' + body(row)[1:] for row in range(rows)]

    async def main() -> float:
        waiting = iter(bodies)
        headers = {"content-type": "application/json"}
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def work(url: str) -> None:
                for payload in waiting:
                    async with session.post(url, data=payload, headers=headers) as response:
                        orjson.loads(await response.read())

            started = time.perf_counter()
            await asyncio.gather(*(work(f"{urls[i % len(urls)]}/chat/completions") for i in range(IN_FLIGHT)))
            return rows / (time.perf_counter() - started)

    return uvloop.run(main())


def models(urls: Sequence[str], rpm: float | None = None) -> list[ModelSpec]:
    """Two models with two endpoints each, 128 in flight in all, and so many requests a minute from each endpoint."""
    limits = LimitsSpec(max_in_flight=IN_FLIGHT // len(urls), rpm=rpm)
    half = len(urls) // 2
    return [
        ModelSpec(name=name, endpoints=tuple(EndpointSpec(url=u, model=name, limits=limits) for u in pool))
        for name, pool in (("weak", urls[:half]), ("strong", urls[half:]))
    ]


class GeneratedWork:
    """Rows made up beforehand, as the peer's are, half of them for either model."""

    def __init__(self, rows: int, journal: Callable[[str], JournalPort]) -> None:
        """`journal` opens a model's."""
        self._rows = rows
        self._bodies = [body(row) for row in range(rows)]
        self._journal = journal

    def history(self, shard: int) -> History:
        return History({"weak": self._rows // 2, "strong": self._rows // 2})

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        start = 0 if model == "weak" else self._rows // 2
        for first in range(start, start + self._rows // 2, 512):
            last = min(first + 512, start + self._rows // 2)
            yield [
                Request(row, shard, "/v1/chat/completions", self._bodies[row], 20, None, model)
                for row in range(first, last)
            ]

    def journal(self, shard: int, model: str) -> JournalPort:
        return self._journal(model)


def dispatcher_alone(urls: Sequence[str], rows: int) -> float:
    """Rows per second of the dispatcher: least connections, concurrency limits, intents and outcomes journaled and
    synced.
    """

    async def main(folder: Path) -> float:
        with GroupSync() as group:
            dispatcher = Dispatcher(
                models(urls),
                DispatchSpec(balancer="least_connections"),
                GeneratedWork(rows, lambda model: Journal.open(folder / f"{model}.jsonl", ["a", "b"], group)),
                seed=0,
                keys=lambda name: None,
                wall=time.time,
            )
            started = time.perf_counter()
            dispatcher.feed(0)
            dispatcher.close_feed()
            await dispatcher.run()
            return rows / (time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(main(Path(folder)))


def whole_job(urls: Sequence[str], rows: int, engine: str, *, weigh: bool = False) -> tuple[float, dict[str, Any], int]:
    """Rows per second from the command's start to its end, its report, and the peak memory of all its processes.

    Weighing slows the job down, so without `weigh` the memory is 0.
    """
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        with prompts.open("w") as file:
            file.writelines(json.dumps({"id": f"r{row}", "prompt": prompt(row)}) + "\n" for row in range(rows))
        job = {
            "name": "benchmark",
            "engine": engine,
            "input": {"path": str(prompts), "params": {"temperature": 0.7}},
            "router": {"kind": "random"},
            "models": [m.model_dump(mode="json") for m in models(urls)],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": str(Path(folder) / "results.jsonl")},
        }
        path = Path(folder) / "job.yaml"
        path.write_text(json.dumps(job))
        started = time.perf_counter()
        command = [sys.executable, "-m", "jobs.cli", "run", str(path), "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        peak = _Peak(process.pid)
        with peak if weigh else nullcontext():
            out, err = process.communicate()
        wall = time.perf_counter() - started
        if process.returncode != 0:
            raise SystemExit(err.decode())
        with (Path(folder) / "results.jsonl").open() as results:
            assert sum(1 for _ in results) == rows
        return rows / wall, json.loads(out), peak.most


class _Peak:
    """Samples the memory of a process and all it started."""

    def __init__(self, pid: int) -> None:
        self.most = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            self.most = max(self.most, resident_of_session(self._pid))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help="also weigh jobs of this size and of four times as much")
    arguments = parser.parse_args()
    rows = arguments.rows
    figures: dict[str, list[tuple[float, float]]] = {}
    with constant_server(4) as urls:
        before = bare_aiohttp(urls, rows)
        for _ in range(arguments.rounds):
            for measure in (_alone, _whole_on_ray, _whole_inline):
                speeds = measure(urls, rows)
                after = bare_aiohttp(urls, rows)
                for name, speed in speeds.items():
                    figures.setdefault(name, []).append((speed, speed / ((before + after) / 2)))
                before = after
        print(f"{rows:,} rows, {IN_FLIGHT} in flight, {arguments.rounds} rounds; bare aiohttp last: {before:,.0f}/s")
        for name, pairs in figures.items():
            speed, ratio = (statistics.median(column) for column in zip(*pairs, strict=True))
            spread = " ".join(f"{ratio:.2f}" for _, ratio in pairs)
            print(f"  {name:<20} {speed:8,.0f} rows/s   {ratio:.2f} x bare aiohttp   ({spread})")
        if arguments.memory:
            for count in (rows, 4 * rows):
                _, _, memory = whole_job(urls, count, "ray", weigh=True)
                print(f"  peak memory on Ray, {count:,} rows: {memory / 2**20:,.0f} MiB, all its processes together")


def _alone(urls: Sequence[str], rows: int) -> dict[str, float]:
    return {"dispatcher alone": dispatcher_alone(urls, rows)}


def _whole_on_ray(urls: Sequence[str], rows: int) -> dict[str, float]:
    command, report, _ = whole_job(urls, rows, "ray")
    return {"whole job, ray": report["timing"]["rows_per_second"], "the command, ray": command}


def _whole_inline(urls: Sequence[str], rows: int) -> dict[str, float]:
    command, report, _ = whole_job(urls, rows, "inline")
    return {"whole job, inline": report["timing"]["rows_per_second"], "the command, inline": command}


if __name__ == "__main__":
    main()
