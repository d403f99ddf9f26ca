"""LiteLLM's proxy, which enforces the limits of a virtual key, in front of a server of ours without limits."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.constant_server import free_port
from benchmarks.limits import figures
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.processes import Server, aiohttp_servers, server_process

# The proxy looks virtual keys up in a database; this function returns the key's limits instead.
_AUTH = """
from litellm.proxy._types import UserAPIKeyAuth

async def key(request, api_key):
    return UserAPIKeyAuth(api_key="0" * 64, token="0" * 64, rpm_limit={rpm}, tpm_limit={tpm})
"""
_LOG_FORMAT = "%(created).6f %(status_code)s"


@contextmanager
def litellm_proxy(behaviour: Behaviour, seconds: int, *, rpm: int | None, tpm: int | None) -> Iterator[list[Server]]:
    """Yield the proxy and the server behind it.

    Clients send to the proxy. Its log counts only the requests that it refused; those that it forwarded are in the log
    of the server behind it.

    Args:
        seconds: length of the proxy's window, which begins with the first request after the previous window ended.
        rpm: requests that a window allows, under LiteLLM's name for it.
        tpm: tokens that a window allows, under LiteLLM's name for it.
    """
    with aiohttp_servers(behaviour) as (behind,), TemporaryDirectory() as name:
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
        with server_process(command, port, environ, folder / "output") as process:
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


def _refusals(text: str) -> list[LoggedRequest]:
    return [
        LoggedRequest(float(words[0]), float(words[0]), 0, int(words[1]), -1, 0)
        for words in figures.complete_lines(text)
        if words[1] != "200"
    ]
