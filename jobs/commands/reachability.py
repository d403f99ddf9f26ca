"""Connects to endpoints, and asks for their lists of models, before any prompt is sent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from batch.dispatch.transports.probing import ask_for_models, connection_refusal
from jobs.environment import key
from schemas.endpoints import EndpointSpec, ModelSpec

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
_AT_ONCE = 32

T = TypeVar("T")


def unreachable(models: Sequence[ModelSpec]) -> dict[str, list[str]]:
    """For each model, one line per endpoint to which no connection can be made. Connects, and sends nothing."""
    asked = [(model.name, e) for model in models for e in model.endpoints if e.base_url is not None]
    reasons = _each((endpoint for _, endpoint in asked), lambda e: connection_refusal(e, key, _CONNECT_SECONDS))
    silent: dict[str, list[str]] = {}
    for (model, endpoint), reason in zip(asked, reasons, strict=True):
        if reason is not None:
            silent.setdefault(model, []).append(
                f"model {model}: no connection to {endpoint.place(model)}: {reason}; is the server running?"
            )
    return silent


def models_listed(endpoints: Sequence[EndpointSpec]) -> list[tuple[bool, str]]:
    """Ask each endpoint for its list of models; for each, whether it is usable, and its answer in one line."""
    return _each(endpoints, _listed)


async def _listed(endpoint: EndpointSpec) -> tuple[bool, str]:
    if endpoint.base_url is None:
        return True, "not asked: LiteLLM knows where it is"
    return await ask_for_models(endpoint, key, _ANSWER_SECONDS)


def _each(endpoints: Iterable[EndpointSpec], ask: Callable[[EndpointSpec], Awaitable[T]]) -> list[T]:
    """Call `ask` for each endpoint, many at once, in a thread of their own: the caller's may have an event loop."""

    async def main() -> list[T]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(endpoint: EndpointSpec) -> T:
            async with free:
                return await ask(endpoint)

        return await asyncio.gather(*map(one, endpoints))

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, main()).result()
