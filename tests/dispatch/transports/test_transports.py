"""The OpenAI transport turns whatever a server does into a `Completion` or a `DispatchError`."""

import asyncio
import gzip
import inspect
import socket
from typing import Any

import orjson
import pyreqwest.exceptions
import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.openai import OpenAITransport
from batch.dispatch.transports.registry import build_transport
from batch.errors import (
    BadAnswer,
    ConnectionLost,
    DispatchError,
    NotConnected,
    Refused,
    SpecError,
    TimedOut,
)
from schemas.endpoints import EndpointSpec
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL
from tests.dispatch.transports.exchanges import GOOD, KEY, NOW, free_port, streams_for_ever
from tests.dispatch.transports.raw_server import Handler, RawServer, http, raw_server, says
from tests.fakes import request


def transport(url: str, timeout_seconds: float = 5.0, **endpoint: Any) -> OpenAITransport:
    spec = EndpointSpec(url=url, model="m", **endpoint)
    return OpenAITransport(spec, timeout_seconds=timeout_seconds, keys={"K": KEY}.get, wall=lambda: NOW)


async def send(url: str, path: str = CHAT_URL, **options: Any) -> Completion:
    """Make one attempt at this URL."""
    sender = transport(url, **options)
    asked = request()
    asked.url = path
    try:
        return await sender.send(asked)
    finally:
        await sender.aclose()


def ask(handler: Handler, path: str = CHAT_URL, **options: Any) -> tuple[Completion, RawServer]:
    """Make one attempt against a raw server with this handler."""

    async def main() -> tuple[Completion, RawServer]:
        async with raw_server(handler) as server:
            return await send(server.url, path, **options), server

    return asyncio.run(main())


def fault(handler: Handler, **options: Any) -> DispatchError:
    """Return the error of one attempt; check that it has a cause or a status and shows neither key nor prompt."""
    with pytest.raises(DispatchError) as caught:
        ask(handler, **options)
    error = caught.value
    assert error.__cause__ is not None or error.status is not None
    assert KEY not in f"{error!r} {error} {error.body!r}"
    assert "hi" not in str(error).split()
    return error


def test_a_good_answer_comes_whole(capfd: pytest.CaptureFixture[str]) -> None:
    """The answer comes back with its bytes and token counts; the request is the row's body and the endpoint's model."""
    completion, server = ask(says(http(200, GOOD)))
    assert (completion.raw, completion.prompt_tokens, completion.completion_tokens) == (GOOD, 3, 1)
    (received,) = server.received
    head, body = received.split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert orjson.loads(body) == {
        "model": "m",
        "stream": False,
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT_URL, b'{"choices":[{"message":{"content":"yes"}}]}'),
        (COMPLETIONS_URL, b'{"choices":[{"text":"yes"}]}'),
        (EMBEDDINGS_URL, b'{"data":[{"embedding":[0.5]}]}'),
    ],
)
def test_each_path_is_asked_where_it_is(path: str, body: bytes) -> None:
    """The row's path follows the endpoint's base URL and occurs once."""
    _, server = ask(says(http(200, body)), path)
    assert server.received[0].startswith(f"POST {path} HTTP/1.1\r\n".encode())


@pytest.mark.parametrize(
    ("provider", "header"), [("generic", f"authorization: bearer {KEY}"), ("azure", f"api-key: {KEY}")]
)
def test_the_key_goes_where_the_provider_wants_it(provider: str, header: str) -> None:
    """The key is sent as a bearer token, for Azure as `api-key`, and nowhere else."""
    _, server = ask(says(http(200, GOOD)), api_key_env="K", provider=provider)
    lines = server.received[0].lower().split(b"\r\n")
    assert [line for line in lines if KEY.encode() in line] == [header.lower().encode()]


def test_without_a_key_none_is_sent() -> None:
    """Without `api_key_env` there is no authorization header."""
    _, server = ask(says(http(200, GOOD)))
    assert b"authorization" not in server.received[0].lower()


def test_a_key_is_not_in_any_repr() -> None:
    """Neither the transport nor the endpoint shows the key, and a missing key is named by its variable."""
    spec = EndpointSpec(url="http://127.0.0.1:9/v1", model="m", api_key_env="K")
    built = OpenAITransport(spec, timeout_seconds=1, keys={"K": KEY}.get, wall=lambda: NOW)
    assert KEY not in f"{built!r} {vars(built)!r} {spec!r}"
    with pytest.raises(SpecError, match="environment variable K is not set"):
        build_transport(spec, timeout_seconds=1, keys=lambda name: None, wall=lambda: NOW)


def test_an_answer_with_line_breaks_comes_out_on_one_line() -> None:
    """Pretty-printed JSON is rewritten on one line, so that it fits into a journal; so is the body of an error."""
    pretty = orjson.dumps(orjson.loads(GOOD), option=orjson.OPT_INDENT_2)
    completion, _ = ask(says(http(200, pretty.replace(b"\n", b"\r\n"))))
    assert b"\n" not in completion.raw
    assert b"\r" not in completion.raw
    assert orjson.loads(completion.raw) == orjson.loads(GOOD)
    assert fault(says(http(400, b'{\n "error": {}\n}'))).body == b'{"error":{}}'


def test_a_refused_connection_raises_not_connected() -> None:
    """A refused connection raises `NotConnected`: nothing was sent, so nothing was billed."""
    with pytest.raises(NotConnected) as caught:
        asyncio.run(send(f"http://127.0.0.1:{free_port()}/v1"))
    assert not caught.value.reached


def test_a_name_that_does_not_resolve_raises_not_connected() -> None:
    """A host name that does not resolve (`.invalid` never does) raises `NotConnected`."""
    with pytest.raises(NotConnected):
        asyncio.run(send("http://nowhere.invalid/v1"))


def test_a_connection_that_is_never_accepted_raises_not_connected() -> None:
    """The time limit for connecting raises `NotConnected`, however short the time limit for the answer is."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        address = server.getsockname()
        fillers = [socket.socket() for _ in range(8)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            with pytest.raises(NotConnected):
                asyncio.run(send(f"http://127.0.0.1:{address[1]}/v1", timeout_seconds=0.3))
        finally:
            for filler in fillers:
                filler.close()


def test_a_server_that_is_no_tls_server_raises_not_connected() -> None:
    """A failed TLS handshake comes before the request, so it raises `NotConnected`."""

    async def main() -> None:
        async with raw_server(says(b"not tls")) as server:
            await send(server.url.replace("http://", "https://"), timeout_seconds=0.3)

    with pytest.raises(NotConnected):
        asyncio.run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\n{",
        b"garbage\r\n\r\n",
    ],
)
def test_an_answer_that_breaks_off_is_a_lost_connection(answer: bytes) -> None:
    """An answer that breaks off anywhere, even before its first byte, may have been billed: the server got the
    request.
    """
    error = fault(says(answer))
    assert isinstance(error, ConnectionLost)
    assert error.billed
    assert error.reached
    assert error.retryable


def test_a_slow_answer_is_timed_out() -> None:
    """An answer times out if its first byte comes too late, and if its end does."""

    async def never(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def drips(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    for handler in (never, drips):
        error = fault(handler, timeout_seconds=0.2)
        assert isinstance(error, TimedOut)
        assert error.billed
        assert (error.reached, error.retryable) == (True, True)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b"{}", b'{"choices":{}}', b'{"error":"x"}', b"\xff"])
def test_a_200_that_is_no_answer_is_a_bad_answer(body: bytes) -> None:
    """A 200 without the promised JSON is the endpoint's fault, and may be retried."""
    error = fault(says(http(200, body)))
    assert isinstance(error, BadAnswer)
    assert (error.status, error.retryable, error.blame) == (200, True, "endpoint")


def test_an_answer_without_end_is_given_up() -> None:
    """An answer longer than 64 MiB is a bad answer, and the transport closes the connection."""

    async def main() -> None:
        closed = asyncio.Event()
        async with raw_server(streams_for_ever(closed)) as server:
            with pytest.raises(BadAnswer, match="longer than 64 MiB"):
                await send(server.url)
            async with asyncio.timeout(5):
                await closed.wait()

    asyncio.run(main())


@pytest.mark.parametrize(("spare", "fits"), [(0, True), (-1, False)])
def test_the_longest_answer_is_taken(monkeypatch: pytest.MonkeyPatch, spare: int, fits: bool) -> None:
    """The limit on an answer's length is exact, and applies to the decompressed body, which could fill the memory."""
    monkeypatch.setattr("batch.dispatch.transports.openai.MOST_ANSWER_BYTES", len(GOOD) + spare)
    for answer in (http(200, GOOD), http(200, gzip.compress(GOOD, mtime=0), "content-encoding: gzip")):
        if fits:
            assert ask(says(answer))[0].raw == GOOD
        else:
            assert isinstance(fault(says(answer)), BadAnswer)


def test_an_answer_nested_deeper_than_can_be_written_is_kept() -> None:
    """orjson reads deeper nesting than it writes; such an answer only has its line breaks replaced."""
    deep = GOOD[:-1] + b',"x":' + b"[\n" * 300 + b"]" * 300 + b"}"
    raw = ask(says(http(200, deep)))[0].raw
    assert raw == deep.replace(b"\n", b" ")


@pytest.mark.parametrize("count", [b"-1", b"1.5", b"true", b"1000000001", b"18446744073709551615", b"null"])
def test_a_count_of_tokens_that_cannot_be_is_unknown(count: bytes) -> None:
    """A token count that does not fit into a column of the results, or is no count, is unknown."""
    completion, _ = ask(says(http(200, GOOD.replace(b'"completion_tokens":1', b'"completion_tokens":' + count))))
    assert (completion.prompt_tokens, completion.completion_tokens) == (3, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    """Prompt and key never reach the target of a redirect; the attempt is refused with advice to give the final url."""

    async def main() -> RawServer:
        async with raw_server(says(http(200, GOOD))) as target:
            redirect = says(http(status, b"", f"location: {target.url}/chat/completions"))
            async with raw_server(redirect) as server:
                with pytest.raises(Refused, match="give the final url"):
                    await send(server.url, api_key_env="K")
            return target

    assert asyncio.run(main()).received == []


def errors_of_pyreqwest() -> list[type[Exception]]:
    """All error classes of pyreqwest."""
    named = vars(pyreqwest.exceptions).values()
    return [c for c in named if inspect.isclass(c) and issubclass(c, pyreqwest.exceptions.PyreqwestError)]


def made(kind: type[Exception]) -> Exception:
    details: dict[str, Any] = {"causes": None, "status": 500, "doc": "{", "pos": 0}
    return kind("boom") if kind is pyreqwest.exceptions.PyreqwestError else kind("boom", details)


@pytest.mark.parametrize("kind", errors_of_pyreqwest(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_client_ends_in_our_tree(kind: type[Exception]) -> None:
    """Each error class of the client, also a future one, becomes a `DispatchError` that keeps its cause."""

    class RaisingClient:
        def request(self, method: str, url: str) -> None:
            raise made(kind)

        async def close(self) -> None:
            """Nothing is open."""

    async def main() -> None:
        sender = transport("http://127.0.0.1:9/v1")
        await sender.aclose()
        sender._client._client = RaisingClient()  # type: ignore[attr-defined]
        await sender.send(request())

    with pytest.raises(DispatchError) as caught:
        asyncio.run(main())
    assert type(caught.value.__cause__) is kind
    assert caught.value.kind != DispatchError.kind


def test_a_cancelled_attempt_is_cancelled() -> None:
    """Cancellation passes through the transport and does not become a `DispatchError`."""

    async def never(request: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        async with raw_server(never) as server:
            sending = asyncio.create_task(send(server.url))
            await server.arrived.wait()
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending

    asyncio.run(main())


def test_a_base_url_with_more_in_its_path_is_kept() -> None:
    """The path of the base URL is kept, since a proxy may serve the API below a path of its own."""

    async def main() -> RawServer:
        async with raw_server(says(http(200, GOOD))) as server:
            await send(server.url.replace("/v1", "/team/a/v1"))
            return server

    assert asyncio.run(main()).received[0].startswith(b"POST /team/a/v1/chat/completions HTTP/1.1\r\n")
