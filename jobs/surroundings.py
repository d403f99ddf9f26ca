"""Whether endpoints can be reached, found out without sending anything."""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from schemas.endpoints import ModelSpec

_CONNECT_SECONDS = 5.0
_AT_ONCE = 32


def unreachable(models: Sequence[ModelSpec]) -> dict[str, list[str]]:
    """By model, one line for each endpoint to which no connection can be made. Connects, and sends nothing."""
    asked = [(model.name, e.url) for model in models for e in model.endpoints if e.url is not None]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        reasons = list(threads.map(lambda pair: refusal(pair[1]), asked))
    silent: dict[str, list[str]] = {}
    for (model, url), reason in zip(asked, reasons, strict=True):
        if reason is not None:
            silent.setdefault(model, []).append(
                f"model {model}: no connection to {url}: {reason}; is the server running?"
            )
    return silent


def refusal(url: str) -> str | None:
    """Why no connection can be made; `None`: one can."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "the url's port is not a number"
    if not parts.hostname:
        return "the url names no host"
    try:
        with socket.create_connection((parts.hostname, port), _CONNECT_SECONDS):
            return None
    except TimeoutError:
        return f"no answer within {_CONNECT_SECONDS:g} seconds"
    except OSError as error:
        return (error.strerror or str(error)).lower()
