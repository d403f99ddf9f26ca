"""Small real things for tests, named after what they control."""

from collections.abc import Awaitable, Callable
from random import Random

from batch.clock import Clock
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Completion, Request
from batch.errors import NotConnected
from schemas.endpoints import EndpointSpec

Behaviour = Callable[[Request, EndpointSpec], Awaitable[Completion]]


class FunctionTransport:
    """A server written as a function."""

    def __init__(self, behaviour: Behaviour, endpoint: EndpointSpec) -> None:
        self._behaviour = behaviour
        self._endpoint = endpoint

    async def send(self, request: Request) -> Completion:
        return await self._behaviour(request, self._endpoint)

    async def aclose(self) -> None:
        """Nothing to close."""


async def _no_server(request: Request, endpoint: EndpointSpec) -> Completion:
    raise NotConnected("no connection")


def fake_endpoint(spec: EndpointSpec, index: int, clock: Clock, random: Random) -> Endpoint:
    """An endpoint of the model `m` with no server behind it."""
    return Endpoint(spec, "m", index, FunctionTransport(_no_server, spec), clock, random)


def answer(prompt_tokens: int | None = 10, completion_tokens: int | None = 5) -> Completion:
    """A good answer."""
    raw = b'{"choices":[{"message":{"role":"assistant","content":"yes"}}]}'
    return Completion(raw, prompt_tokens, completion_tokens)


def request(row: int = 0, *, model: str = "m", prompt_tokens: int = 10, max_tokens: int | None = 10) -> Request:
    """A request of one row."""
    return Request(
        row=row,
        shard=0,
        url="/v1/chat/completions",
        body=b'{"messages":[{"role":"user","content":"hi"}]}',
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        model=model,
    )
