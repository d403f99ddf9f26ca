"""The LiteLLM transport gives the same answers and errors as the OpenAI transport."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.registry import build_transport
from batch.errors import (
    BadAnswer,
    BadRequest,
    DispatchError,
    NotConnected,
    RateLimited,
    Refused,
    SpecError,
    TimedOut,
)
from schemas.endpoints import EndpointSpec
from tests.dispatch.transports.exchanges import GOOD, KEY, LIMITS, NOW, SAID, free_port, streams_for_ever
from tests.dispatch.transports.raw_server import Handler, RawServer, http, raw_server, says
from tests.fakes import request
from tests.rehearsed import serve


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
def test_litellm_answers_and_refusals_come_out_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through LiteLLM an answer has its token counts, an unknown model is `Refused`, a closed port `NotConnected`."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with serve({"model": "m", "answers": "echo"}) as served:

        async def through(url: str, model: str) -> Completion:
            spec = EndpointSpec(url=url, model=f"openai/{model}", transport="litellm", api_key_env="K")
            sender = build_transport(spec, timeout_seconds=60, keys={"K": KEY}.get, wall=lambda: NOW)
            try:
                return await sender.send(replace(request()))
            finally:
                await sender.aclose()

        completion = asyncio.run(through(served.urls[0], "m"))
        assert (orjson.loads(completion.raw)["choices"][0]["message"]["content"], completion.completion_tokens) == (
            "hi",
            1,
        )
        assert b"\n" not in completion.raw
        with pytest.raises(Refused) as refused:
            asyncio.run(through(served.urls[0], "other"))
        assert refused.value.status == 404
        assert KEY not in f"{refused.value!r}"
        with pytest.raises(NotConnected):
            asyncio.run(through(f"http://127.0.0.1:{free_port()}/v1", "m"))
        spec = EndpointSpec(url=served.urls[0], model="openai/m", transport="litellm", api_key_env="K")
        with pytest.raises(SpecError, match="environment variable K is not set"):
            build_transport(spec, timeout_seconds=1, keys=lambda name: None, wall=lambda: NOW)


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
def test_through_litellm_a_server_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM changes statuses and drops codes and headers; the transport returns those that the server sent."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    good = orjson.loads(GOOD) | {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
    good["choices"][0] |= {"index": 0, "finish_reason": "stop"}

    async def through(answer: bytes, model: str) -> Completion:
        async with raw_server(says(answer)) as server:
            spec = EndpointSpec(url=server.url, model=model, transport="litellm", api_key_env="K")
            sender = build_transport(spec, timeout_seconds=60, keys={"K": KEY}.get, wall=lambda: NOW)
            try:
                return await sender.send(request())
            finally:
                await sender.aclose()

    def refused(status: int, body: bytes, model: str) -> DispatchError:
        with pytest.raises(DispatchError) as caught:
            asyncio.run(through(http(status, body, "retry-after: 7", *LIMITS), model))
        error = caught.value
        assert (error.status, error.retry_after, error.allowances) == (status, 7.0, SAID)
        return error

    assert asyncio.run(through(http(200, orjson.dumps(good), *LIMITS), "openai/m")).allowances == SAID
    spent = b'{"error":{"message":"m","type":"insufficient_quota","code":"project_spend_limit_exceeded"}}'
    filtered = b'{"error":{"message":"m","type":"x","code":"content_filter"}}'
    overloaded = b'{"type":"error","error":{"message":"m","type":"overloaded_error"}}'
    assert refused(429, spent, "openai/m").code == "project_spend_limit_exceeded"
    assert type(refused(403, filtered, "openai/m")) is BadRequest
    assert type(refused(529, overloaded, "anthropic/claude-3-haiku-20240307")) is RateLimited


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
@pytest.mark.parametrize("model", ["openai/m", "anthropic/claude-3-haiku-20240307"])
def test_through_litellm_no_answer_is_without_end(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is too long is a `BadAnswer`, and one that arrives byte by byte times out."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")

    async def drips(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def through(handler: Handler, timeout_seconds: float) -> None:
        async with raw_server(handler) as server:
            spec = EndpointSpec(url=server.url, model=model, transport="litellm", api_key_env="K")
            sender = build_transport(spec, timeout_seconds=timeout_seconds, keys={"K": KEY}.get, wall=lambda: NOW)
            try:
                await sender.send(request())
            finally:
                await sender.aclose()

    with pytest.raises(BadAnswer, match="longer than 64 MiB"):
        asyncio.run(through(streams_for_ever(asyncio.Event()), 20))
    with pytest.raises(TimedOut):
        asyncio.run(through(drips, 0.5))


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
def test_litellm_without_a_key_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM sends nothing without a key, and retrying would not help, so the attempt is `Refused`."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def main() -> RawServer:
        async with raw_server(says(http(200, GOOD))) as server:
            spec = EndpointSpec(url=server.url, model="openai/m", transport="litellm")
            sender = build_transport(spec, timeout_seconds=60, keys=lambda name: None, wall=lambda: NOW)
            try:
                with pytest.raises(Refused, match="api_key_env"):
                    await sender.send(request())
            finally:
                await sender.aclose()
            return server

    assert asyncio.run(main()).received == []
