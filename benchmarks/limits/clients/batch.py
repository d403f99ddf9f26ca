"""What a client is told, and the process it runs in."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from schemas.base import Spec
from schemas.endpoints import EndpointSpec


class Batch(Spec):
    """Rows for one model."""

    endpoints: tuple[EndpointSpec, ...]
    """With whatever of their limits the client is told."""

    rows: int
    """How many."""

    max_tokens: int = 400
    """Of each row."""

    in_flight: int = 64
    """For clients that leave it to their caller how many requests are under way."""

    attempts: int = 60
    """Each row may have."""

    timeout_seconds: float = 120.0
    """Longest one attempt may take."""

    folder: str = ""
    """Where the client may leave files."""


class Client(NamedTuple):
    """One of those compared."""

    name: str
    module: str
    """Run with the batch on its standard input."""
    in_flight: int | None = None
    """Instead of the batch's."""
    python: str = sys.executable


OURS = Client("batchrouter", "benchmarks.limits.clients.ours")


def litellm(in_flight: int | None = None) -> Client:
    """LiteLLM's Router as it comes, under a semaphore of its caller."""
    name = "LiteLLM Router" + (f", {in_flight} in flight" if in_flight else "")
    return Client(name, "benchmarks.limits.clients.litellm_router", in_flight)


def cookbook(in_flight: int | None = None) -> Client:
    """The retry loop of OpenAI's cookbook."""
    name = "cookbook loop" + (f", {in_flight} in flight" if in_flight else "")
    return Client(name, "benchmarks.limits.clients.cookbook", in_flight)


def curator(python: str | None) -> tuple[Client, ...]:
    """Curator, where an interpreter that has it is given: it does not go with our versions of its packages."""
    if python is None and importlib.util.find_spec("bespokelabs") is None:
        return ()
    return (Client("Curator", "benchmarks.limits.clients.curator", None, python or sys.executable),)


@contextmanager
def running(client: Client, batch: Batch) -> Iterator["subprocess.Popen[bytes]"]:
    """The client's process, ended at the end of the block; its files are removed."""
    with TemporaryDirectory() as folder:
        told = batch.model_copy(
            update={"folder": folder, "in_flight": client.in_flight or batch.in_flight}
        ).model_dump_json()
        environ = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
            "TELEMETRY_ENABLED": "false",
            "HOME": folder,
            "TMPDIR": folder,
        }
        errors = Path(folder) / "errors"
        with (
            errors.open("wb") as sink,
            subprocess.Popen(
                [client.python, "-m", client.module], stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=environ
            ) as process,
        ):
            try:
                assert process.stdin is not None
                process.stdin.write(told.encode())
                process.stdin.close()
                yield process
                if process.poll():
                    raise SystemExit(f"{client.name} ended with {process.returncode}:\n{_tail(errors)}")
            finally:
                process.kill()


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
