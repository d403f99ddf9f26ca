"""LiteLLM reaches servers with the endpoint's headers, keys and proxies, and secrets in its answers are masked."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.litellm import _ProxiedTransport
from batch.dispatch.transports.registry import build_transport
from batch.environment import Keys
from batch.errors import DispatchError
from schemas.endpoints import EndpointSpec
from tests.dispatch.transports.exchanges import GOOD
from tests.dispatch.transports.raw_server import Handler, RawServer, http, raw_server
from tests.fakes import request

KEY = "key/0123+456789=abcdef"
TEAM = "team-0123456789-secret"
ANSWER = orjson.dumps(
    orjson.loads(GOOD)
    | {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}],
    }
)

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("default")]  # LiteLLM's own models make pydantic warn


@pytest.fixture(autouse=True)
def _local_prices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def through(handler: Handler, keys: Keys, model: str = "openai/m", **endpoint: Any) -> tuple[Completion, RawServer]:
    """Make one attempt against a raw server, whose URL is used unless the endpoint has one."""

    async def main() -> tuple[Completion, RawServer]:
        async with raw_server(handler) as server:
            spec = EndpointSpec(**{"url": server.url} | endpoint, model=model, transport="litellm")
            sender = build_transport(spec, timeout_seconds=10, keys=keys, wall=lambda: 0.0)
            try:
                return await sender.send(request()), server
            finally:
                await sender.aclose()

    return asyncio.run(main())


def answers(*bodies: tuple[int, bytes]) -> Handler:
    left = list(bodies)

    async def handler(asked: bytes, writer: asyncio.StreamWriter) -> None:
        status, body = left.pop(0) if len(left) > 1 else left[0]
        writer.write(http(status, body, "connection: close"))
        await writer.drain()

    return handler


def test_litellm_sends_headers_and_hides_what_comes_back() -> None:
    """Headers are sent with their variables filled in; key and variables are masked in the answer, even if escaped."""
    echo = ANSWER.replace(b"yes", KEY.replace("/", "\\/").encode() + b" " + TEAM.encode())
    completion, server = through(
        answers((200, echo)), {"K": KEY, "T": TEAM}.get, api_key_env="K", headers={"x-team": "${T}", "x-a": "1"}
    )
    head = server.received[0].decode().lower()
    assert f"x-team: {TEAM}\r\n" in head
    assert "x-a: 1\r\n" in head
    assert f"authorization: bearer {KEY}\r\n" in head
    assert orjson.loads(completion.raw)["choices"][0]["message"]["content"] == "[key] [key]"


@pytest.mark.parametrize("model", ["openai/m", "anthropic/claude-3-haiku-20240307"])
def test_an_error_of_litellm_gives_no_key_away(model: str) -> None:
    """Neither message, code, words nor body of an error show the key, however the server spelled it."""
    spelt = KEY.replace("/", "\\/").replace("+", "\\u002b")
    body = f'{{"type":"error","error":{{"message":"bad {spelt}","code":"{spelt}","type":"{KEY}"}}}}'.encode()
    with pytest.raises(DispatchError) as refused:
        through(answers((400, body)), {"K": KEY}.get, model=model, api_key_env="K")
    error = refused.value
    shown = f"{error} {error!r} {error.words} {error.code} {error.body!r}"
    for spelling in (KEY, spelt, KEY.replace("/", "\\/"), "0123+456789", "456789=abcdef"):
        assert spelling not in shown


def test_litellm_takes_a_renewed_key() -> None:
    """When the server refuses the key, the key command runs again, and the same attempt succeeds with the new key."""
    tokens = iter(["first-token-0123456789", "second-token-0123456789"])

    def keys(reference: str) -> str | None:
        return next(tokens) if reference.startswith("command:") else None

    refusal = b'{"error":{"message":"expired","type":"invalid_request_error","code":"invalid_api_key"}}'
    completion, server = through(answers((401, refusal), (200, ANSWER)), keys, api_key_command=["get-token"])
    assert orjson.loads(completion.raw)["choices"][0]["message"]["content"] == "yes"
    assert [word in asked for word, asked in zip((b"first-token", b"second-token"), server.received, strict=True)] == [
        True,
        True,
    ]


def test_litellm_goes_through_the_proxy() -> None:
    """With OpenAI's protocol the request goes to the proxy, with the whole address."""

    async def main() -> list[bytes]:
        async with raw_server(answers((200, ANSWER))) as proxy:
            spec = EndpointSpec(url="http://llm.invalid/v1", model="openai/m", transport="litellm", api_key_env="K")
            keys = {"K": KEY, "HTTP_PROXY": proxy.url.removesuffix("/v1")}.get
            sender = build_transport(spec, timeout_seconds=10, keys=keys, wall=lambda: 0.0)
            await sender.send(request())
            await sender.aclose()
            return proxy.received

    (asked,) = asyncio.run(main())
    assert asked.startswith(b"POST http://llm.invalid/v1/chat/completions HTTP/1.1\r\n")


def test_litellm_is_told_azures_version() -> None:
    """Azure's version comes from `api_version`, or from the query of the url."""
    ways: tuple[dict[str, Any], ...] = ({"api_version": "2024-06-01"}, {})
    for endpoint in ways:

        async def main(more: dict[str, Any] = endpoint) -> bytes:
            async with raw_server(answers((200, ANSWER))) as server:
                base = server.url.removesuffix("/v1")
                url = base if more else f"{base}?api-version=2024-06-01"
                spec = EndpointSpec(url=url, model="azure/gpt-4o", transport="litellm", api_key_env="K", **more)
                sender = build_transport(spec, timeout_seconds=10, keys={"K": KEY}.get, wall=lambda: 0.0)
                await sender.send(request())
                await sender.aclose()
                return server.received[0]

        asked = asyncio.run(main()).split(b" ")[1]
        assert asked == b"/openai/deployments/gpt-4o/chat/completions?api-version=2024-06-01"


def test_more_than_a_hundred_requests_are_in_flight_at_once() -> None:
    """120 requests are in flight at once; with httpx's default limit of 100 the rest would wait until they time out."""
    wanted = 120

    async def main() -> list[int]:
        everybody = asyncio.Event()
        arrived: list[bytes] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.append(await reader.readuntil(b"\r\n\r\n"))
            if len(arrived) == wanted:
                everybody.set()
            await everybody.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, httpx.AsyncClient(transport=_ProxiedTransport(lambda name: None), timeout=30) as client:
            answers = await asyncio.gather(*(client.get(f"http://127.0.0.1:{port}/v1/models") for _ in range(wanted)))
        return [answer.status_code for answer in answers]

    assert asyncio.run(main()) == [200] * wanted
