"""How long a command takes to start: `python -m benchmarks.start [--rounds N]`.

For `run`, on Ray and inline, it measures the seconds from the command's start to the first POST that a server receives,
on a job of 20 rows with the random router. For commands that send no requests, it measures the seconds to their end.
One unmeasured run of each command warms the caches; then the commands take turns. Each line gives the median and the
slowest of the rounds, and the target for them.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.constant_server import ANSWER

ROWS = 20
TARGET_SECONDS = {"ray": 8.0, "inline": 2.0}
# Commands that send no requests, and the exit status of each.
OFFLINE_COMMANDS = {("--help",): 0, ("schema",): 0, ("run", "wrong.yaml"): 2}
OFFLINE_TARGET_SECONDS = 0.5


class _Server(ThreadingHTTPServer):
    """Records when the first POST arrived, by `time.perf_counter`."""

    first_post: float | None = None
    # As uvicorn's. With the usual 5, or with 128, clients that all connect at once have to retry for seconds.
    request_queue_size = 2048


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        if self.server.first_post is None:
            self.server.first_post = time.perf_counter()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class calls it so
        """Print nothing: the benchmark prints only its table."""


@contextmanager
def server() -> Iterator[_Server]:
    """Run the server in a thread of this process until the block ends."""
    with _Server(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()


def start(engine: str) -> tuple[float, float]:
    """Seconds from the command's start to the first request, and to the command's end."""
    with server() as running, tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"What is {row} times 7?"}) + "\n" for row in range(ROWS)))
        url = f"http://127.0.0.1:{running.server_address[1]}/v1"
        job = {
            "engine": engine,
            "input": {"path": str(prompts)},
            "router": {"kind": "random"},
            "models": [{"name": name, "endpoints": [{"url": url}]} for name in ("weak", "strong")],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": str(Path(folder) / "results.jsonl")},
        }
        path = Path(folder) / "job.yaml"
        path.write_text(json.dumps(job))
        started = time.perf_counter()
        command = [sys.executable, "-m", "jobs.cli", "run", str(path), "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
        if ended.returncode != 0 or running.first_post is None:
            raise SystemExit(ended.stderr)
        return running.first_post - started, wall


def run_offline(arguments: tuple[str, ...]) -> float:
    """Run a command that sends no requests; return the seconds it takes."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "wrong.yaml").write_text("engin: ray\n")
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        found = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        started = time.perf_counter()
        ended = subprocess.run(command, cwd=folder, env=found, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
    if ended.returncode != OFFLINE_COMMANDS[arguments]:
        raise SystemExit(ended.stderr)
    return wall


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for engine in TARGET_SECONDS:
        start(engine)
    for arguments in OFFLINE_COMMANDS:
        run_offline(arguments)
    measured: dict[str, list[tuple[float, float]]] = {engine: [] for engine in TARGET_SECONDS}
    offline_walls: dict[tuple[str, ...], list[float]] = {arguments: [] for arguments in OFFLINE_COMMANDS}
    for _ in range(rounds):
        for engine, times in measured.items():
            times.append(start(engine))
        for arguments, walls in offline_walls.items():
            walls.append(run_offline(arguments))
    print(f"seconds from the command's start, {rounds} rounds")
    print("          to the first request, median  slowest  target   to the end, median")
    for engine, times in measured.items():
        first = [time_to_first for time_to_first, _ in times]
        wall = statistics.median(wall for _, wall in times)
        target = TARGET_SECONDS[engine]
        print(f"  {engine:<8}{statistics.median(first):28.2f}{max(first):9.2f}{target:8g}{wall:21.2f}")
    print("          to the end, median          slowest  target")
    for arguments, walls in offline_walls.items():
        name = " ".join(arguments)
        print(f"  {name:<16}{statistics.median(walls):20.2f}{max(walls):9.2f}{OFFLINE_TARGET_SECONDS:8g}")


if __name__ == "__main__":
    main()
