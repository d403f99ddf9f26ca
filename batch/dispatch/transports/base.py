"""The interface of transports: one small method that sends a request. Limits and retries are the dispatcher's task."""

from typing import Protocol

from batch.dispatch.request import Completion, Request


class Transport(Protocol):
    """Sends requests to one endpoint."""

    async def send(self, request: Request) -> Completion:
        """Make one attempt. Raises only DispatchError, and passes cancellation on."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
