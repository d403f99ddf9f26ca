"""Small real things for tests, named after what they control."""

from collections.abc import Awaitable, Callable

from batch.dispatch.request import Completion, Request
from schemas.endpoints import EndpointSpec

Behaviour = Callable[[Request, EndpointSpec], Awaitable[Completion]]


class FunctionTransport:
    """A server written as a function."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def send(self, request: Request, endpoint: EndpointSpec) -> Completion:
        return await self._behaviour(request, endpoint)

    async def aclose(self) -> None:
        """Nothing to close."""


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
