"""What a transport is: one small method that sends a request. Limits, retries and choice are the dispatcher's."""

from typing import Protocol

from batch.dispatch.request import Completion, Request


class Transport(Protocol):
    """Sends to one endpoint."""

    async def send(self, request: Request) -> Completion:
        """One attempt. Raises only DispatchError (and passes cancellation on)."""
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
