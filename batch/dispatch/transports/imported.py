"""A transport of the user's own, named by its import path."""

from typing import Any

from batch.clock import WallClock
from batch.dispatch.request import Completion, Request
from batch.environment import Keys
from batch.errors import SpecError
from batch.user_code import call_failures, make_own
from schemas.endpoints import EndpointSpec
from schemas.imported import ImportSpec


class ImportedTransport:
    """Sends by the user's class. A DispatchError that it raises is an error of the attempt; any other ends the run."""

    def __init__(
        self, spec: ImportSpec, endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock
    ) -> None:
        """The class is built as our own transports are: from the endpoint, `timeout_seconds`, `keys` and `wall`.

        Raises:
            SpecError: the class is missing, is no transport, or its constructor fails.
        """
        given = {"timeout_seconds": timeout_seconds, "keys": keys, "wall": wall}
        twice = next((name for name in given if name in spec.options), None)
        if twice is not None:
            raise SpecError(f"transport.options: {twice} is given by batchrouter; leave it out")
        options = {**spec.options, **given}
        self._transport: Any = make_own(
            spec.path, options, "transport", endpoint, call="send(request)", is_no="transport"
        )
        self._path = spec.path

    async def send(self, request: Request) -> Completion:
        """As the user's class sends.

        Raises:
            SpecError: the class raised something else than a DispatchError, or returned something else than a
                Completion.
        """
        with call_failures(self._path, "transport", "send"):
            completion = await self._transport.send(request)
        if not isinstance(completion, Completion):
            raise SpecError(f"transport.path: {self._path}: `send` returned a {type(completion).__name__}")
        return completion

    async def aclose(self) -> None:
        close = getattr(self._transport, "aclose", None)
        if close is not None:
            await close()
