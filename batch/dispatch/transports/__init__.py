"""One tiny method that sends a request; everything clever sits above it."""

import threading
from collections.abc import Callable
from typing import Protocol, assert_never

from batch.clock import WallClock
from batch.dispatch.request import Completion, Request
from schemas.endpoints import EndpointSpec

Keys = Callable[[str], str | None]
"""Gives the value of an environment variable; asked when a transport is built, never stored in a spec."""


class Transport(Protocol):
    """Sends to one endpoint."""

    async def send(self, request: Request, endpoint: EndpointSpec) -> Completion:
        """One attempt. Raises only DispatchError (and passes cancellation on)."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def build_transport(endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock) -> Transport:
    """The transport of one endpoint.

    Raises:
        SpecError: its key's environment variable is not set.
    """
    match endpoint.transport:
        case "openai":
            _load_pyreqwest()
            from batch.dispatch.transports.openai import OpenAITransport

            return OpenAITransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case "litellm":
            from batch.dispatch.transports.litellm import LiteLLMTransport

            return LiteLLMTransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case _:
            assert_never(endpoint.transport)


def _load_pyreqwest() -> None:
    """Import pyreqwest in a thread that never ends.

    Its allocator takes the importing thread for the main one: once that thread has ended, the next client built in
    another thread crashes the process (pyreqwest 0.15.1).
    """
    if _pyreqwest_is_loaded.is_set():
        return

    def load() -> None:
        import pyreqwest.client  # noqa: F401

        _pyreqwest_is_loaded.set()
        threading.Event().wait()

    threading.Thread(target=load, name="pyreqwest", daemon=True).start()
    _pyreqwest_is_loaded.wait()


_pyreqwest_is_loaded = threading.Event()
