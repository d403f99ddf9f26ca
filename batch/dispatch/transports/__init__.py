"""One tiny method that sends a request; everything clever sits above it."""

from typing import Protocol, assert_never

from batch.clock import WallClock
from batch.dispatch.request import Completion, Request
from batch.dispatch.transports.keys import Keys
from schemas.endpoints import EndpointSpec

__all__ = ["Keys", "Transport", "build_transport"]


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
        SpecError: its key, or anything else that it names, is not there.
    """
    match endpoint.transport:
        case "openai":
            from batch.dispatch.transports.openai import OpenAITransport

            return OpenAITransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case "litellm":
            from batch.dispatch.transports.litellm import LiteLLMTransport

            return LiteLLMTransport(endpoint, timeout_seconds=timeout_seconds, keys=keys, wall=wall)
        case _:
            assert_never(endpoint.transport)
