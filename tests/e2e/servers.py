"""Servers that are not ours, started for a test and stopped after it: each a context manager on a free port."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HOST = "127.0.0.1"
LOG_TAIL_LINES = 40
# LiteLLM wants a master key and takes no short one.
LITELLM_MASTER_KEY = "0123456789abcdef0123456789abcdef01234567"
BIN = Path(sys.executable).parent


class ServerFailedError(Exception):
    """The server ended or stayed silent; the message ends with its log's last lines."""


@dataclass(frozen=True)
class Server:
    """A running server: `url` up to and including `/v1`, the model it serves, and the key it wants."""

    url: str
    model: str
    key: str | None
    log: Path
    start_seconds: float


@contextmanager
def transformers_serve(checkpoint: Path, log: Path, *, patience_seconds: float = 300) -> Iterator[Server]:
    """`transformers serve` with the checkpoint in a folder, on the CPU. It answers for the folder's path."""
    port = free_port()
    model = str(checkpoint.resolve())
    command = [BIN / "transformers", "serve", model, "--host", HOST, "--port", port, "--device", "cpu"]
    # A model this small is slower with more threads, and much slower where others want the cores too.
    environ = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
    }
    with _running(command, log, environ, f"http://{HOST}:{port}/health", patience_seconds) as seconds:
        yield Server(f"http://{HOST}:{port}/v1", model, None, log, seconds)


@contextmanager
def litellm_proxy(
    model: str, reply: str, folder: Path, log: Path, *, patience_seconds: float = 300
) -> Iterator[Server]:
    """A LiteLLM proxy that gives the same `reply` to everything asked of `model`. Its config goes to `folder`."""
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": model,
                # The name of a real model, so that LiteLLM finds a provider; mock_response keeps it from being called.
                "litellm_params": {"model": "openai/gpt-4o-mini", "api_key": "unused", "mock_response": reply},
            }
        ],
        "litellm_settings": {"telemetry": False},
        "general_settings": {"master_key": LITELLM_MASTER_KEY},
    }
    path = folder / "litellm.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [BIN / "litellm", "--config", path, "--host", HOST, "--port", port, "--telemetry", "False"]
    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "NO_DOCS": "True"}
    ready = f"http://{HOST}:{port}/health/readiness"
    with _running(command, log, offline, ready, patience_seconds) as seconds:
        yield Server(f"http://{HOST}:{port}/v1", model, LITELLM_MASTER_KEY, log, seconds)


@contextmanager
def constant_nginx(
    model: str, reply: str, folder: Path, log: Path, *, patience_seconds: float = 60
) -> Iterator[Server]:
    """One nginx worker that gives the same chat completion to everything; its files go to `folder`.

    Needs nginx: see `nginx_path`.
    """
    port = free_port()
    template = (Path(__file__).parent / "nginx.conf").read_text()
    answer = json.dumps(chat_completion(model, reply))
    assert "'" not in answer, "the reply stands in single quotes in nginx's configuration"
    for name, value in {"FOLDER": str(folder), "HOST": HOST, "PORT": str(port), "ANSWER": answer}.items():
        template = template.replace(f"@{name}@", value)
    path = folder / "nginx.conf"
    path.write_text(template)
    command = [nginx_path(), "-p", folder, "-c", path, "-e", "stderr"]
    ready = f"http://{HOST}:{port}/health"
    with _running(command, log, {}, ready, patience_seconds) as seconds:
        yield Server(f"http://{HOST}:{port}/v1", model, None, log, seconds)


def nginx_path() -> str | None:
    """Where nginx is, if it is installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def chat_completion(model: str, reply: str) -> dict[str, Any]:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": reply}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    head = {"id": "chatcmpl-constant", "object": "chat.completion", "created": 0, "model": model}
    return {**head, "choices": [choice], "usage": usage}


def ask(server: Server, prompt: str, *, max_tokens: int = 16, timeout: float = 60) -> dict[str, Any]:
    """One chat completion, without any client of ours in between."""
    body = {
        "model": server.model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    headers = {"content-type": "application/json"}
    if server.key is not None:
        headers["authorization"] = f"Bearer {server.key}"
    request = urllib.request.Request(f"{server.url}/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=timeout) as response:
        return dict(json.load(response))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


@contextmanager
def _running(
    command: Sequence[object], log: Path, environ: Mapping[str, str], ready: str, patience_seconds: float
) -> Iterator[float]:
    """Run `command` with its output in `log`; enters once `ready` answers 200, with the seconds that took."""
    words = [str(part) for part in command]
    started = time.monotonic()
    with (
        log.open("wb") as sink,
        subprocess.Popen(words, stdout=sink, stderr=subprocess.STDOUT, env={**os.environ, **environ}) as process,
    ):
        try:
            while not _answers(ready):
                if process.poll() is not None:
                    raise ServerFailedError(f"{words[0]} ended with {process.returncode}:\n{_tail(log)}")
                if time.monotonic() - started > patience_seconds:
                    raise ServerFailedError(f"{words[0]} is silent after {patience_seconds} s:\n{_tail(log)}")
                time.sleep(0.1)
            yield time.monotonic() - started
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
