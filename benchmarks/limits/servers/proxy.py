"""LiteLLM's proxy, holding the limits of a virtual key, before a server of ours that holds none."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.constant_server import free_port
from benchmarks.limits import figures
from benchmarks.limits.figures import Seen
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.starting import Server, answering, running

# Keys are kept in a database; a function that knows the key is taken in its place.
_AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def key(request, api_key):
    return UserAPIKeyAuth(api_key="0" * 64, token="0" * 64, rpm_limit={rpm}, tpm_limit={tpm})
"""
_LOG_FORMAT = "%(created).6f %(status_code)s"


@contextmanager
def litellm_proxy(behaviour: Behaviour, seconds: int, *, rpm: int | None, tpm: int | None) -> Iterator[list[Server]]:
    """The proxy, of which only its refusals are told, and the server behind it, which sees what it lets through.

    Args:
        seconds: length of the proxy's window, which begins with the first request after the last one ended.
    """
    with answering(behaviour) as (behind,), TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        log, config, logging = folder / "access.log", folder / "config.yaml", folder / "logging.json"
        config.write_text(json.dumps(_config(behind.url)))
        (folder / "limited_key.py").write_text(_AUTH.format(rpm=rpm, tpm=tpm))
        logging.write_text(json.dumps(_logging(log)))
        binary = str(Path(sys.executable).parent / "litellm")
        command = [binary, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        command += ["--telemetry", "False", "--log_config", str(logging)]
        environ = {
            **os.environ,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "CRITICAL",
            "LITELLM_RATE_LIMIT_WINDOW_SIZE": str(seconds),
            "NO_DOCS": "True",
        }
        with running(command, port, environ, folder / "output") as process:
            yield [Server(f"http://127.0.0.1:{port}/v1", log, process, _refusals), behind]


def _config(upstream: str) -> dict[str, object]:
    model = {"model": "openai/m", "api_base": upstream, "api_key": "unused"}
    return {
        "model_list": [{"model_name": "*", "litellm_params": model}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "general_settings": {"master_key": "sk-" + "0123456789abcdef" * 3, "custom_auth": "limited_key.key"},
    }


def _logging(log: Path) -> dict[str, object]:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"seen": {"()": "uvicorn.logging.AccessFormatter", "fmt": _LOG_FORMAT, "use_colors": False}},
        "handlers": {"seen": {"class": "logging.FileHandler", "filename": str(log), "formatter": "seen"}},
        "loggers": {"uvicorn.access": {"handlers": ["seen"], "level": "INFO", "propagate": False}},
    }


def _refusals(text: str) -> list[Seen]:
    return [
        Seen(float(words[0]), float(words[0]), 0, int(words[1]), -1, 0)
        for words in figures.whole_lines(text)
        if words[1] != "200"
    ]
