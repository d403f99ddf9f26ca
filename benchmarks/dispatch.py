"""Rows per second of a job, and of the dispatcher alone, beside a bare aiohttp loop: `python -m benchmarks.dispatch`.

The server is nginx with one worker and a constant answer; prompts are short. The peer does the least possible: 128
coroutines post the same payloads and parse the answers, without limits, retries, balancing, journal or output. A
machine's speed drifts within a minute, so each figure is divided by the mean of the peer's speeds just before and just
after it. Each line gives the median rows per second, the median ratio, and in parentheses the ratios of all rounds:

    dispatcher alone   `batch.dispatch.dispatcher` on generated rows, with journals of `batch.runs.journal` and fsync
    whole job          the run's own wall time, from finding its input to its last committed part
    the command        the same, with what the process does before and after: imports, Ray's start and end, the report
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
    """A short prompt, different for every row."""
    return QUESTIONS[row % len(QUESTIONS)].format(a=row % 997 + 3, b=row // 7 + 2)


def body(row: int) -> bytes:
    """The body of a row's request, without the model's name."""
    message = {"messages": [{"role": "user", "content": prompt(row)}], "temperature": 0.7}
    return json.dumps(message, separators=(",", ":")).encode()


def bare_aiohttp(urls: Sequence[str], rows: int) -> float:
    """Rows per second of a loop that only posts and parses."""
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
    """Two models, each with half of the endpoints; 128 requests in flight in all.

    Args:
        rpm: requests per minute that each endpoint allows; `None`: no limit.
    """
    limits = LimitsSpec(max_in_flight=IN_FLIGHT // len(urls), rpm=rpm)
    half = len(urls) // 2
    return [
        ModelSpec(name=name, endpoints=tuple(EndpointSpec(url=u, model=name, limits=limits) for u in pool))
        for name, pool in (("weak", urls[:half]), ("strong", urls[half:]))
    ]


class GeneratedWork:
    """Gives the dispatcher one shard of rows, half of them for each model; their bodies are built beforehand, as the
    peer's are.
    """

    def __init__(self, rows: int, journal: Callable[[str], JournalPort]) -> None:
        """`journal` opens the journal of the model that it is called with."""
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
    """Rows per second of the dispatcher with least connections, concurrency limits, and journals with fsync."""

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


def whole_job(
    urls: Sequence[str], rows: int, engine: str, *, measure_memory: bool = False
) -> tuple[float, dict[str, Any], int]:
    """Run a job; return rows per second from the command's start to its end, its report, and peak memory in bytes.

    The memory is that of all the job's processes together. Measuring it slows the job down, so without `measure_memory`
    it is 0.
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
        peak = _PeakMemory(process.pid)
        with peak if measure_memory else nullcontext():
            out, err = process.communicate()
        wall = time.perf_counter() - started
        if process.returncode != 0:
            raise SystemExit(err.decode())
        with (Path(folder) / "results.jsonl").open() as results:
            assert sum(1 for _ in results) == rows
        return rows / wall, json.loads(out), peak.most


class _PeakMemory:
    """Samples the memory of a process and of all processes that it started; `most` is the peak in bytes."""

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
    """Run all rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--memory", action="store_true", help="also measure the memory of jobs with --rows and four times --rows rows"
    )
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
                _, _, memory = whole_job(urls, count, "ray", measure_memory=True)
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
