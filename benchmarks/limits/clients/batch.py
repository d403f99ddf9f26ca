"""What a client has to send, and the process it runs in."""

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
    """Rows for one model, and how to send them."""

    endpoints: tuple[EndpointSpec, ...]
    """The model's endpoints, with those of their limits that the client may know."""

    rows: int
    """How many rows there are."""

    max_tokens: int = 400
    """The most tokens that each answer may have."""

    in_flight: int = 64
    """How many requests to have in flight; for clients that leave this to their caller."""

    attempts: int = 60
    """How many attempts each row may have."""

    timeout_seconds: float = 120.0
    """Longest one attempt may take."""

    folder: str = ""
    """A folder for the client's files; filled in when the client is started."""


class Client(NamedTuple):
    """A client that takes part in the comparison."""

    name: str
    module: str
    """Its program, which reads the batch as JSON from standard input."""
    in_flight: int | None = None
    """How many requests to have in flight, in place of the batch's `in_flight`."""
    python: str = sys.executable
    """The Python interpreter that runs it."""


BATCHROUTER = Client("batchrouter", "benchmarks.limits.clients.batchrouter")


def litellm(in_flight: int | None = None) -> Client:
    """LiteLLM's Router with its defaults; its caller bounds the requests in flight by a semaphore."""
    name = "LiteLLM Router" + (f", {in_flight} in flight" if in_flight else "")
    return Client(name, "benchmarks.limits.clients.litellm_router", in_flight)


def cookbook(in_flight: int | None = None) -> Client:
    """The retry loop of OpenAI's cookbook."""
    name = "cookbook loop" + (f", {in_flight} in flight" if in_flight else "")
    return Client(name, "benchmarks.limits.clients.cookbook", in_flight)


def curator(python: str | None) -> tuple[Client, ...]:
    """Curator, if the interpreter `python` or this one has it; else nothing.

    Curator cannot be installed beside our versions of the packages it needs.
    """
    if python is None and importlib.util.find_spec("bespokelabs") is None:
        return ()
    return (Client("Curator", "benchmarks.limits.clients.curator", None, python or sys.executable),)


@contextmanager
def client_process(client: Client, batch: Batch) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the client on the batch and yield its process; kill it at the end of the block and remove its files.

    Raises:
        SystemExit: the client ended with an error; the message holds the end of its output.
    """
    with TemporaryDirectory() as folder:
        batch = batch.model_copy(update={"folder": folder, "in_flight": client.in_flight or batch.in_flight})
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
                process.stdin.write(batch.model_dump_json().encode())
                process.stdin.close()
                yield process
                if process.poll():
                    raise SystemExit(f"{client.name} ended with {process.returncode}:\n{_tail(errors)}")
            finally:
                process.kill()


def _tail(path: Path, lines: int = 20) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
