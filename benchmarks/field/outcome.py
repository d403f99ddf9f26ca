"""Runs one field case in a copy of its folder, and holds what its commands printed, wrote and sent."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.field.recording import RecordingServer

ROOT = Path(__file__).parents[2]
# The longest case waits a minute for its model to load.
LONGEST_SECONDS = 150.0
_START_SECONDS = 20.0
_PORT = re.compile(r"127\.0\.0\.1:(\d+)")


@dataclass
class Command:
    """How one command ended."""

    status: int | None
    """Exit status; `None`: it was killed after `LONGEST_SECONDS`."""
    seconds: float
    output: str
    """Everything it printed, on both streams."""

    @property
    def lines(self) -> list[str]:
        """The lines that it printed, without empty ones."""
        return [line for line in self.output.splitlines() if line.strip()]

    @property
    def refusals(self) -> list[str]:
        """The lines that report an error (`check` calls them problems), and the lines of a traceback, if any."""
        return [line for line in self.lines if line.startswith(("batchrouter:", "problem:", "Traceback", "  File"))]


@dataclass
class Case:
    """A case: its folder, its server, and what the last command showed."""

    name: str
    folder: Path
    recorded: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body of each request that was sent; only for cases of inputs."""
    stats: dict[str, Any] = field(default_factory=dict)
    """What the case's own server counted; only for cases of endpoints."""
    settings: tuple[str, ...] = ()
    """`--set` values for every command."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Environment variables for every command, besides this process's own."""
    url: str = ""
    """Base URL of the case's own server, which gives its counts at `/stats`; empty for cases of inputs."""

    def command(self, name: str, *arguments: str) -> Command:
        """Run one command of the program on the case's job file."""
        sets = [word for setting in self.settings for word in ("--set", setting)]
        line = [sys.executable, "-m", "jobs.cli", name, "job.yaml", *sets, *arguments]
        # A proxy of the machine would intercept the requests to the case's server.
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        environment |= {"PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "HF_HUB_OFFLINE": "1"}
        started = time.monotonic()
        try:
            ended = subprocess.run(
                line,
                cwd=self.folder,
                env={**environment, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONGEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Command(None, time.monotonic() - started, "")
        return Command(ended.returncode, time.monotonic() - started, ended.stdout + ended.stderr)

    def run(self, *arguments: str) -> Command:
        """Run `run --fresh`, then read what the case's own server counted.

        Raises:
            RuntimeError: the server has ended.
        """
        self.recorded.clear()
        ended = self.command("run", "--fresh", *arguments)
        if self.url:
            try:
                with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as answer:
                    self.stats = json.load(answer)
            except urllib.error.URLError as error:
                raise RuntimeError(f"{self.name}: its server is gone: {error}") from error
        return ended

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the results file, in order; empty if there is no file."""
        path = self.folder / "out" / "results.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def report(self) -> dict[str, Any]:
        """The run's report; empty if there is none."""
        path = self.folder / "out" / "results.jsonl.run" / "report.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def statuses(self) -> dict[str, int]:
        """How many rows have each status."""
        counts: dict[str, int] = {}
        for row in self.rows():
            counts[row["status"]] = counts.get(row["status"], 0) + 1
        return counts


def free_port() -> int:
    """A port of the loopback address that no process listens on."""
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        return int(there.getsockname()[1])


@contextmanager
def input_case(source: Path, scratch: Path) -> Iterator[Case]:
    """A case of an input; its job sends to a server that records every request."""
    folder = _copied(source, scratch)
    with RecordingServer() as server:
        setting = f"models.0.endpoints.0.url={server.url}/v1"
        yield Case(source.name, folder, server.recorded, settings=(setting,))


@contextmanager
def endpoint_case(source: Path, scratch: Path, environment: Mapping[str, str]) -> Iterator[Case]:
    """A case of an endpoint; its own server runs on a free port until the block ends."""
    folder = _copied(source, scratch)
    job = folder / "job.yaml"
    (old,) = set(_PORT.findall(job.read_text()))
    port = free_port()
    for path in (job, folder / "server.py"):
        path.write_text(path.read_text().replace(old, str(port)))
    server = subprocess.Popen(
        [sys.executable, "server.py"], cwd=folder, env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    try:
        _await(port, server)
        yield Case(source.name, folder, environment=environment, url=f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def _await(port: int, server: "subprocess.Popen[bytes]") -> None:
    give_up = time.monotonic() + _START_SECONDS
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise RuntimeError(f"the case's server ended with {server.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the case's server does not listen")


def _copied(source: Path, scratch: Path) -> Path:
    folder = scratch / source.name
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    # The cases may be read-only, and `copytree` keeps the mode of folders.
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def failed_claims(*claims: tuple[bool, str]) -> Sequence[str]:
    """The sentences of the claims that do not hold.

    Args:
        claims: pairs of whether a claim holds and the sentence to print if it does not.
    """
    return [sentence for holds, sentence in claims if not holds]
