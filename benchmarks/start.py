"""How long until the first request is on its way, or a command has said its say: `python -m benchmarks.start`.

A job of few rows and the random router, from the start of the command to the first POST that a server sees, on Ray and
inline; and commands that send nothing, to their end. One run of each that is not measured warms the caches; then they
take turns.
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
ASKED_SECONDS = {"ray": 8.0, "inline": 2.0}
# Commands that send nothing, and the status each ends with.
SAYING = {("--help",): 0, ("schema",): 0, ("run", "wrong.yaml"): 2}
ASKED_SECONDS_SAYING = 0.5


class _Server(ThreadingHTTPServer):
    """Notes when the first POST came."""

    first_post: float | None = None
    # As uvicorn's: with the usual 5, or 128, connections made all at once wait for seconds to be made again.
    request_queue_size = 2048


class _Conversation(BaseHTTPRequestHandler):
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
        """Say nothing."""


@contextmanager
def server() -> Iterator[_Server]:
    """A running server in a thread of this process."""
    with _Server(("127.0.0.1", 0), _Conversation) as running:
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


def say(arguments: tuple[str, ...]) -> float:
    """Seconds that a command takes which sends nothing."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "wrong.yaml").write_text("engin: ray\n")
        command = [sys.executable, "-m", "jobs.cli", *arguments]
        found = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        started = time.perf_counter()
        ended = subprocess.run(command, cwd=folder, env=found, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - started
    if ended.returncode != SAYING[arguments]:
        raise SystemExit(ended.stderr)
    return wall


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for engine in ASKED_SECONDS:
        start(engine)
    for arguments in SAYING:
        say(arguments)
    measured: dict[str, list[tuple[float, float]]] = {engine: [] for engine in ASKED_SECONDS}
    said: dict[tuple[str, ...], list[float]] = {arguments: [] for arguments in SAYING}
    for _ in range(rounds):
        for engine, times in measured.items():
            times.append(start(engine))
        for arguments, walls in said.items():
            walls.append(say(arguments))
    print(f"seconds from the command's start, {rounds} rounds")
    print("          to the first request, median  slowest  asked   to the end, median")
    for engine, times in measured.items():
        first = [time_to_first for time_to_first, _ in times]
        wall = statistics.median(wall for _, wall in times)
        asked = ASKED_SECONDS[engine]
        print(f"  {engine:<8}{statistics.median(first):28.2f}{max(first):9.2f}{asked:7g}{wall:21.2f}")
    print("          to the end, median          slowest  asked")
    for arguments, walls in said.items():
        name = " ".join(arguments)
        print(f"  {name:<16}{statistics.median(walls):20.2f}{max(walls):9.2f}{ASKED_SECONDS_SAYING:7g}")


if __name__ == "__main__":
    main()
