"""Requests reach endpoints by the right address, with the right headers, query and key, and through proxies."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.access import proxy_for, resolve
from batch.dispatch.transports.registry import build_transport
from batch.environment import Keys
from batch.errors import NotConnected, Refused, SpecError
from jobs.key_sources import key_from
from schemas.endpoints import EndpointSpec, ModelSpec, named
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL
from tests.dispatch.transports.exchanges import GOOD, no_keys
from tests.dispatch.transports.raw_server import Handler, http, raw_server, says
from tests.fakes import request

ANSWER = GOOD[:-1] + b',"data":[{"embedding":[0.5]}]}'
TOKEN = "tok-0123456789-abcdef"


async def send(spec: EndpointSpec, keys: Keys = no_keys, path: str = CHAT_URL, seconds: float = 5.0) -> Completion:
    """Make one attempt with the transport that a run would build."""
    sender = build_transport(spec, timeout_seconds=seconds, keys=keys, wall=lambda: 0.0)
    asked = request()
    asked.url = path
    try:
        return await sender.send(asked)
    finally:
        await sender.aclose()


def received(keys: Keys = no_keys, path: str = CHAT_URL, suffix: str = "", **endpoint: Any) -> str:
    """Return the request that a raw server receives, head and body."""

    async def main() -> str:
        async with raw_server(says(http(200, ANSWER))) as server:
            base = server.url.removesuffix("/v1")
            await send(EndpointSpec(url=f"{base}{suffix or '/v1'}", model="m", **endpoint), keys, path)
            return server.received[0].decode()

    return asyncio.run(main())


def asked_path(**options: Any) -> str:
    return received(**options).split(" ")[1]


@pytest.mark.parametrize(
    ("suffix", "endpoint", "path", "asked"),
    [
        ("/v1", {}, CHAT_URL, "/v1/chat/completions"),
        ("/v1/", {}, CHAT_URL, "/v1/chat/completions"),
        ("/v1?tenant=a", {}, CHAT_URL, "/v1/chat/completions?tenant=a"),
        ("/v1/?tenant=a&b=", {}, EMBEDDINGS_URL, "/v1/embeddings?tenant=a&b="),
        ("/v1/chat/completions", {}, CHAT_URL, "/v1/chat/completions"),
        ("/v1/embeddings?x=1", {}, EMBEDDINGS_URL, "/v1/embeddings?x=1"),
        (
            "/v1?a=1",
            {"query": {"b": "two words", "c": "${ID}"}},
            CHAT_URL,
            "/v1/chat/completions?a=1&b=two+words&c=i%2Fd",
        ),
        (
            "/openai/deployments/d?api-version=2024-06-01",
            {"provider": "azure"},
            CHAT_URL,
            "/openai/deployments/d/chat/completions?api-version=2024-06-01",
        ),
        (
            "/openai/deployments/d/chat/completions?api-version=2024-06-01",
            {"provider": "azure", "api_version": "2024-06-01"},
            CHAT_URL,
            "/openai/deployments/d/chat/completions?api-version=2024-06-01",
        ),
        (
            "/openai/deployments/d",
            {"provider": "azure", "api_version": "2024-06-01"},
            EMBEDDINGS_URL,
            "/openai/deployments/d/embeddings?api-version=2024-06-01",
        ),
        (
            "/",
            {"provider": "azure", "api_version": "1"},
            CHAT_URL,
            "/openai/deployments/m/chat/completions?api-version=1",
        ),
        (
            "/openai/v1",
            {"provider": "azure", "api_version": "preview"},
            CHAT_URL,
            "/openai/v1/chat/completions?api-version=preview",
        ),
    ],
)
def test_paths_go_before_queries(suffix: str, endpoint: dict[str, Any], path: str, asked: str) -> None:
    """The query of the url, `query` and Azure's version follow the path; a url that already has the path is fine."""
    assert asked_path(keys={"ID": "i/d"}.get, path=path, suffix=suffix, **endpoint) == asked


def test_headers_are_sent_with_variables_filled_in() -> None:
    """The configured headers are sent beside batchrouter's own; a header may carry the key itself."""
    head = received(
        keys={"TEAM": "research", "T": TOKEN}.get,
        headers={"X-Team": "${TEAM}/nightly", "Authorization": "Token ${T}", "x-plain": "1"},
    ).lower()
    for line in (
        "x-team: research/nightly",
        f"authorization: token {TOKEN}",
        "x-plain: 1",
        "content-type: application/json",
    ):
        assert head.count(f"\r\n{line}\r\n") == 1, line


def test_a_variable_that_is_not_set_is_named() -> None:
    """A variable that is not set, or has a value that no header can hold, is named before anything is sent."""
    spec = EndpointSpec(url="http://127.0.0.1:9/v1", model="m", headers={"x-team": "${TEAM}"}, query={"q": "${QUERY}"})
    with pytest.raises(SpecError, match="the header x-team: the environment variable TEAM is not set"):
        resolve(spec, no_keys)
    with pytest.raises(SpecError, match="the query parameter q: the environment variable QUERY is not set"):
        resolve(spec, {"TEAM": "a"}.get)
    with pytest.raises(SpecError, match="a line break") as refused:
        resolve(spec, {"TEAM": f"{TOKEN}\n", "QUERY": "q"}.get)
    assert TOKEN not in str(refused.value)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"headers": {"x-api-key": TOKEN}}, "holds a secret"),
        ({"headers": {"X-Goog-Api-Key": "AIza0123"}}, "holds a secret"),
        ({"headers": {"authorization": f"Bearer {TOKEN}"}}, "holds a secret"),
        ({"headers": {"cookie": "a=b"}}, "holds a secret"),
        ({"headers": {"x-note": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0"}}, "holds a secret"),
        ({"query": {"access_token": TOKEN}}, "holds a secret"),
        ({"query": {"code": TOKEN}}, "holds a secret"),
        ({"query": {"q": "sk-proj-0123456789abcdef"}}, "holds a secret"),
        ({"headers": {"x-team": "$TEAM"}}, "is written as"),
        ({"headers": {"x-team": "team ${TEAM"}}, "only the name of an environment variable"),
        ({"headers": {"Content-Length": "1"}}, "is set by batchrouter"),
        ({"headers": {"a b": "1"}}, "is not a valid name of a header"),
        ({"headers": {"x-a": "1\r\nx-b: 2"}}, "characters that no header takes"),
        ({"headers": {"x-a": "1", "X-A": "2"}}, "is given twice"),
        ({"headers": {"authorization": "Bearer ${T}"}, "api_key_env": "K"}, "give one of them"),
        ({"api_key_env": "K", "api_key_file": "f"}, "give one of api_key_env and api_key_file"),
        ({"api_key_command": "get-token | tr -d x"}, "without a shell"),
        ({"api_key_command": ["echo", "sk-proj-0123456789abcdef"]}, "holds a key"),
        ({"api_key_command": []}, "is empty"),
        ({"client_key": "k.pem"}, "needs a client_cert"),
        ({"api_version": "1"}, "is for `provider: azure`"),
        ({"uds": "/s", "transport": "litellm"}, "only `transport: openai`"),
        ({"url": "unix://relative.sock"}, "an absolute path"),
        ({"url": "http://a b/v1"}, "a space"),
        ({"url": "http://a/v1\x1b]0;x\x07"}, "cannot be printed"),
        ({"url": f"http://a/v1?sig={TOKEN}"}, "a password or a key"),
        ({"url": "http://a/v1#x"}, "has a fragment"),
        ({"url": "http:///v1"}, "names no host"),
        ({"url": "http://[::1/v1"}, "cannot be read"),
        ({"url": "http://a/v1?api-version=1", "provider": "azure", "api_version": "2"}, "the url says 1"),
    ],
)
def test_what_cannot_be_sent_or_would_be_shown_is_refused(endpoint: dict[str, Any], said: str) -> None:
    """The job file is refused when it is read, with a message that repeats no secret."""
    with pytest.raises(ValueError, match=said) as refused:
        EndpointSpec.model_validate({"url": "http://127.0.0.1:9/v1", **endpoint})
    sentence = refused.value.errors()[0]["msg"]  # type: ignore[attr-defined]
    assert TOKEN not in sentence
    assert "0123456789abcdef" not in sentence


@pytest.mark.parametrize(
    "header", ["x-idempotency", "openai-organization", "x-design", "anthropic-version", "x-signal"]
)
def test_ordinary_headers_are_no_secrets(header: str) -> None:
    """A header whose name merely resembles that of a secret is accepted."""
    assert EndpointSpec(url="http://a/v1", headers={header: "2023-06-01"}).headers == {header: "2023-06-01"}


def test_dates_and_numbers_of_yaml_are_text() -> None:
    """YAML parses an unquoted version as a date; the spec turns it back into text."""
    from datetime import date

    spec = EndpointSpec.model_validate(
        {"url": "http://a", "provider": "azure", "api_version": date(2024, 6, 1), "query": {"n": 1, "on": True}}
    )
    assert (spec.api_version, dict(spec.query)) == ("2024-06-01", {"n": "1", "on": "true"})


def test_endpoints_are_told_apart_by_their_keys() -> None:
    """Endpoints with the same url are named by their keys; a url that is unique, or a given name, stays the name.

    The same endpoint or the same name twice is refused.
    """
    url, other = "http://a/v1", "http://b/v1"
    endpoints = (
        EndpointSpec(url=url, api_key_env="KEY_A"),
        EndpointSpec(url=url, api_key_env="KEY_B"),
        EndpointSpec(url=url, api_key_file="/run/secrets/third"),
        EndpointSpec(url=url),
        EndpointSpec(url=url, headers={"x-tenant": "b"}),
        EndpointSpec(url=url, api_key_env="KEY_A", name="mine"),
        EndpointSpec(url=other, api_key_env="KEY_A"),
    )
    assert [endpoint.name or endpoint.place("m") for endpoint in named(endpoints, "m")] == [
        f"{url}#KEY_A",
        f"{url}#KEY_B",
        f"{url}#third",
        url,
        f"{url}#2",
        "mine",
        other,
    ]
    with pytest.raises(ValueError, match="lists the endpoint http://a/v1 twice"):
        ModelSpec(name="m", endpoints=(endpoints[0], endpoints[1], endpoints[0]))
    with pytest.raises(ValueError, match="two endpoints with the name 'x'"):
        ModelSpec(name="m", endpoints=(EndpointSpec(url=url, name="x"), EndpointSpec(url=other, name="x")))


def refuses_all_but(good: Callable[[], str]) -> Handler:
    """A handler that answers 401 to any key other than the current one, `good()`."""

    async def handler(asked: bytes, writer: Any) -> None:
        right = f"authorization: bearer {good()}\r\n".encode() in asked.lower()
        refusal = b'{"error":{"message":"expired"}}'
        writer.write(http(200 if right else 401, GOOD if right else refusal, "connection: close"))
        await writer.drain()

    return handler


def keyed(spec: dict[str, Any], keys: Keys, good: Callable[[], str], act: Callable[[Any], Awaitable[None]]) -> None:
    """Run `act`, which gets a function that sends one request, against a server that accepts only the current key."""

    async def main() -> None:
        async with raw_server(refuses_all_but(good)) as server:
            endpoint = EndpointSpec(url=server.url, model="m", **spec)
            sender = build_transport(endpoint, timeout_seconds=5, keys=keys, wall=lambda: 0.0)
            try:
                await act(lambda: sender.send(request()))
            finally:
                await sender.aclose()

    asyncio.run(main())


def test_a_key_that_ran_out_is_fetched_once_for_all_who_were_refused() -> None:
    """When the key expires under twenty requests, the key command runs once, and no request fails."""
    tokens = iter(["first", "second", "third"])
    fetched: list[str] = []

    def keys(reference: str) -> str | None:
        if not reference.startswith("command:"):
            return None
        fetched.append(next(tokens))
        return fetched[-1]

    valid = ["first"]

    async def act(send: Callable[[], Awaitable[Completion]]) -> None:
        await send()
        valid[0] = "second"
        answers = await asyncio.gather(*(send() for _ in range(20)))
        assert [answer.raw for answer in answers] == [GOOD] * 20
        assert fetched == ["first", "second"]

    keyed({"api_key_command": ["get-token"]}, keys, lambda: valid[0], act)


def test_a_key_that_stays_refused_is_a_refusal_and_not_fetched_for_every_row() -> None:
    """If the command prints the same key again, the refusal stands; five requests cause only one more run of it."""
    fetched = [0]

    def keys(reference: str) -> str | None:
        fetched[0] += reference.startswith("command:")
        return "same" if reference.startswith("command:") else None

    async def act(send: Callable[[], Awaitable[Completion]]) -> None:
        for _ in range(5):
            with pytest.raises(Refused, match="HTTP 401: expired"):
                await send()
        assert fetched == [2]

    keyed({"api_key_command": ["get-token"]}, keys, lambda: "other", act)


def test_why_no_new_key_came_is_said() -> None:
    """If the key command fails during a run, the refusal says so."""
    calls = [0]

    def keys(reference: str) -> str | None:
        if not reference.startswith("command:"):
            return None
        calls[0] += 1
        if calls[0] > 1:
            raise SpecError("api_key_command get-token ended with status 1")
        return "first"

    async def act(send: Callable[[], Awaitable[Completion]]) -> None:
        with pytest.raises(Refused, match="no new key: api_key_command get-token ended with status 1"):
            await send()

    keyed({"api_key_command": ["get-token"]}, keys, lambda: "second", act)


def test_a_key_file_is_followed_before_the_server_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the key file was replaced, the next request has the new key; both keys are masked in answers."""
    monkeypatch.setattr("batch.dispatch.transports.keys._LOOK_SECONDS", 0.0)
    path = tmp_path / "token"
    path.write_text("old-key-0123456789")

    def keys(reference: str) -> str | None:
        return key_from(reference) if reference.startswith("file:") else None

    async def main() -> list[bytes]:
        async def handler(asked: bytes, writer: Any) -> None:
            shown = asked.lower().split(b"bearer ")[1].split(b"\r\n")[0]
            writer.write(http(200, GOOD.replace(b"yes", b"old-key-0123456789 " + shown), "connection: close"))
            await writer.drain()

        async with raw_server(handler) as server:
            endpoint = EndpointSpec(url=server.url, model="m", api_key_file=str(path))
            sender = build_transport(endpoint, timeout_seconds=5, keys=keys, wall=lambda: 0.0)
            await sender.send(request())
            fresh = tmp_path / "new"
            fresh.write_text("new-key-0123456789")
            fresh.replace(path)
            answers = [(await sender.send(request())).raw]
            path.unlink()  # no key file for a moment: the last key stays in use
            answers.append((await sender.send(request())).raw)
            await sender.aclose()
            assert [b"new-key" in asked for asked in server.received] == [False, True, True]
            return answers

    assert asyncio.run(main()) == [GOOD.replace(b"yes", b"[key] [key]")] * 2


@pytest.mark.parametrize(
    ("url", "environment", "proxy"),
    [
        ("http://llm.corp/v1", {}, None),
        ("http://llm.corp/v1", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://llm.corp/v1", {"http_proxy": "p:1", "HTTP_PROXY": "http://q:1"}, "http://p:1"),
        ("https://llm.corp/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://llm.corp/v1", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://llm.corp/v1", {"all_proxy": "http://p:1"}, "http://p:1"),
        ("http://llm.corp/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://llm.corp/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a, corp"}, None),
        ("http://llm.corp/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": ".corp"}, None),
        ("http://llm.corp/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "*.corp"}, None),
        ("http://llmcorp/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "corp"}, "http://p:1"),
        ("http://llm.corp:8000/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "llm.corp:8000"}, None),
        ("http://llm.corp:8001/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "llm.corp:8000"}, "http://p:1"),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("http://11.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("http://[::1]:9/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "::1"}, None),
        ("http://[::1]:9/v1", {"HTTP_PROXY": "http://p:1", "no_proxy": "[::1]:9"}, None),
        ("http://127.0.0.1:9/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://localhost:9/v1", {"HTTP_PROXY": "http://10.0.0.1:1"}, None),
        ("http://127.0.0.1:9/v1", {"HTTP_PROXY": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
        ("http://127.0.0.1:9/v1", {"HTTP_PROXY": "http://localhost:1", "NO_PROXY": "127.0.0.1"}, None),
    ],
)
def test_proxies_are_those_of_the_environment(url: str, environment: dict[str, str], proxy: str | None) -> None:
    """Proxy variables are read as curl reads them, with networks in NO_PROXY; a server on this machine is reached
    without a proxy unless the proxy is on this machine too.
    """
    assert proxy_for(url, environment.get) == proxy


def test_requests_go_through_the_proxy_with_its_password() -> None:
    """The proxy gets the whole address and its own password, which is masked in answers and shown nowhere."""

    async def main() -> tuple[str, bytes]:
        answer = http(200, GOOD.replace(b"yes", b"proxypass-0123456789"))
        async with raw_server(says(answer)) as proxy:
            address = proxy.url.removesuffix("/v1").replace("http://", "http://user:proxypass-0123456789@")
            spec = EndpointSpec(url="http://llm.invalid/v1", model="m")
            completion = await send(spec, {"HTTP_PROXY": address}.get)
            access = resolve(spec, {"HTTP_PROXY": address}.get)
            assert "proxypass" not in f"{access!r} {access.proxy_shown}"
            return proxy.received[0].decode().lower(), completion.raw

    head, raw = asyncio.run(main())
    assert head.startswith("post http://llm.invalid/v1/chat/completions http/1.1\r\n")
    assert "proxy-authorization: basic " in head
    assert b"proxypass" not in raw


def test_a_proxy_that_is_not_there_is_named() -> None:
    """An unreachable proxy is named, without its password, and the error points to the environment."""
    keys = {"HTTP_PROXY": "http://user:pass-word-1234@127.0.0.1:9"}.get
    with pytest.raises(
        NotConnected, match=r"through the proxy http://127\.0\.0\.1:9, which the environment names"
    ) as refused:
        asyncio.run(send(EndpointSpec(url="http://llm.invalid/v1", model="m"), keys))
    assert "pass-word" not in str(refused.value)
    with pytest.raises(SpecError, match="HTTP_PROXY is no url of an http proxy"):
        resolve(EndpointSpec(url="http://llm.invalid/v1", model="m"), {"HTTP_PROXY": "socks5://127.0.0.1:9"}.get)
