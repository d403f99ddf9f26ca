"""Endpoints with their own certificate authority, with client certificates, and on Unix domain sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from batch.dispatch.request import Completion
from batch.dispatch.transports.probing import ask_for_models, connection_refusal
from batch.dispatch.transports.registry import build_transport
from batch.errors import BadAnswer, ConnectionLost, NotConnected, SpecError, TimedOut
from schemas.endpoints import EndpointSpec
from tests.dispatch.transports.certificates import Certificates
from tests.dispatch.transports.exchanges import GOOD, no_keys
from tests.dispatch.transports.raw_server import http
from tests.fakes import request

KEY = "key-0123456789-abcdef"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def served(answer: bytes = http(200, GOOD), **listening: Any) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve on a port or, with `path`, on a socket; yield the port's URL and the heads of the requests."""
    heads: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client refused us
        finally:
            writer.close()

    if "path" in listening:
        server = await asyncio.start_unix_server(connected, **listening)
        url = ""
    else:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, **listening)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield url, heads
    finally:
        server.close()
        await server.wait_closed()


async def send(spec: EndpointSpec, seconds: float = 5.0) -> Completion:
    sender = build_transport(spec, timeout_seconds=seconds, keys={"K": KEY}.get, wall=lambda: 0.0)
    try:
        return await sender.send(request())
    finally:
        await sender.aclose()


def test_an_authority_of_ones_own_is_trusted_where_it_is_named(certificates: Certificates) -> None:
    """With `ca_file` the server is trusted; without it nothing is sent, and the error names the certificate."""

    async def main() -> None:
        async with served(ssl=certificates.server_context()) as (url, heads):
            assert (await send(EndpointSpec(url=url, model="m", ca_file=certificates.authority))).raw == GOOD
            with pytest.raises(NotConnected, match="certificate is not trusted"):
                await send(EndpointSpec(url=url, model="m"))
            usable, said = await ask_for_models(EndpointSpec(url=url, model="m"), no_keys, 5)
            assert (usable, "certificate is not trusted" in said) == (False, True)
            assert len(heads) == 1

    asyncio.run(main())


def test_a_client_shows_its_certificate(certificates: Certificates, tmp_path: Path) -> None:
    """The client's certificate comes from one file or two; without one the server accepts no request."""
    both = tmp_path / "both.pem"
    both.write_text(Path(certificates.client).read_text() + Path(certificates.client_key).read_text())

    async def main() -> None:
        async with served(ssl=certificates.server_context(ask_client=True)) as (url, heads):
            known: dict[str, Any] = {"url": url, "model": "m", "ca_file": certificates.authority}
            ways: tuple[dict[str, Any], ...] = (
                {"client_cert": certificates.client, "client_key": certificates.client_key},
                {"client_cert": str(both)},
            )
            for shown in ways:
                assert (await send(EndpointSpec(**known, **shown))).raw == GOOD
            with pytest.raises((NotConnected, ConnectionLost)):
                await send(EndpointSpec(**known))
            assert len(heads) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ({"ca_file": "missing.pem"}, "ca_file missing.pem cannot be used: No such file or directory"),
        ({"ca_file": "{text}"}, "holds no certificate in PEM"),
        ({"ca_file": "{broken}"}, "cannot be used"),
        ({"client_cert": "missing.pem"}, "client_cert missing.pem cannot be used: No such file or directory"),
        ({"client_cert": "{text}"}, "no certificate and its private key in PEM"),
        ({"client_cert": "{authority}"}, "no certificate and its private key in PEM"),
        ({"client_cert": "{client}", "client_key": "{locked_key}"}, "has a passphrase"),
    ],
)
def test_files_that_cannot_be_used_are_one_line(
    certificates: Certificates, tmp_path: Path, endpoint: dict[str, Any], said: str
) -> None:
    """An unusable file raises a one-line `SpecError` before anything is sent; a passphrase is not asked for."""
    (tmp_path / "text").write_text("no certificate")
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    names = {**vars(certificates), "text": tmp_path / "text", "broken": tmp_path / "broken"}
    filled: dict[str, Any] = {key: value.format(**names) for key, value in endpoint.items()}
    with pytest.raises(SpecError, match=said) as refused:
        build_transport(
            EndpointSpec(url="https://127.0.0.1:9/v1", model="m", **filled),
            timeout_seconds=1,
            keys=no_keys,
            wall=lambda: 0.0,
        )
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ({"url": "unix://{socket}"}, b"/v1/chat/completions"),
        ({"url": "unix://{socket}:/api/v3"}, b"/api/v3/chat/completions"),
        ({"uds": "{socket}"}, b"/v1/chat/completions"),
        ({"uds": "{socket}", "url": "http://llm.corp/own?x=1"}, b"/own/chat/completions?x=1"),
    ],
)
def test_a_unix_socket_is_a_server_like_any_other(tmp_path: Path, address: dict[str, Any], asked: bytes) -> None:
    """A server on a socket gets key, headers and query, is not reached through a proxy, and `check` can probe it."""
    socket = str(tmp_path / "server.sock")
    filled: dict[str, Any] = {key: value.format(socket=socket) for key, value in address.items()}
    spec = EndpointSpec(**filled, model="m", api_key_env="K", headers={"x-a": "1"})

    async def main() -> bytes:
        async with served(path=socket) as (_, heads):
            assert (await send(spec)).raw == GOOD
            assert await connection_refusal(spec, {"HTTP_PROXY": "http://127.0.0.1:9", "K": KEY}.get, 5) is None
            usable, said = await ask_for_models(spec, {"K": KEY}.get, 5)
            assert (usable, said) == (True, "reachable; its list of models cannot be read")
            assert b"get " + asked.replace(b"chat/completions", b"models") in heads[-1].lower()
            return heads[0]

    head = asyncio.run(main())
    assert head.startswith(b"POST " + asked + b" HTTP/1.1\r\n")
    assert f"authorization: bearer {KEY}\r\nx-a: 1".encode() in head.lower() or b"x-a: 1\r\n" in head.lower()
    assert head.lower().count(b"authorization: bearer " + KEY.encode()) == 1


def test_faults_of_a_unix_socket_are_those_of_any_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a socket too, a missing server, a broken, slow or too long answer, and a repeated key are handled."""
    socket = str(tmp_path / "server.sock")
    spec = EndpointSpec(url=f"unix://{socket}", model="m", api_key_env="K")

    async def ask(answer: bytes, seconds: float = 5.0) -> Completion:
        async with served(answer, path=socket):
            return await send(spec, seconds)

    with pytest.raises(NotConnected):
        asyncio.run(send(spec))
    assert asyncio.run(connection_refusal(spec, {"K": KEY}.get, 5)) == "no such file or directory"
    with pytest.raises(ConnectionLost):
        asyncio.run(ask(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"))
    assert asyncio.run(ask(http(200, GOOD.replace(b"yes", KEY.encode())))).raw == GOOD.replace(b"yes", b"[key]")
    monkeypatch.setattr("batch.dispatch.transports.openai.MOST_ANSWER_BYTES", 10)
    with pytest.raises(BadAnswer, match="longer than"):
        asyncio.run(ask(http(200, GOOD)))

    async def never() -> None:
        gone = asyncio.Event()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()
            gone.set()

        async with await asyncio.start_unix_server(connected, path=socket):
            try:
                await send(spec, 0.2)
            finally:
                await gone.wait()

    with pytest.raises(TimedOut):
        asyncio.run(never())


def test_tls_goes_through_a_proxy_that_sees_neither_key_nor_prompt(certificates: Certificates) -> None:
    """The proxy gets a CONNECT with its own password, but neither key nor prompt. If it refuses, nothing is sent."""
    asked: list[bytes] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if b"proxy-authorization" not in asked[-1].lower():
            writer.write(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
            writer.close()
            return
        host, port = asked[-1].split(b" ")[1].decode().split(":")
        to_server = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await asyncio.gather(_copy(reader, to_server[1]), _copy(to_server[0], writer))

    async def main() -> None:
        proxy = await asyncio.start_server(tunnel, "127.0.0.1", 0)
        at = f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        async with served(ssl=certificates.server_context()) as (url, heads), proxy:
            spec = EndpointSpec(url=url, model="m", api_key_env="K", ca_file=certificates.authority)
            for password, good in (("user:proxy-password-1@", True), ("", False)):
                keys = {"K": KEY, "HTTPS_PROXY": f"http://{password}{at}"}.get
                sender = build_transport(spec, timeout_seconds=5, keys=keys, wall=lambda: 0.0)
                if good:
                    assert (await sender.send(request())).raw == GOOD
                    assert await ask_for_models(spec, keys, 5) == (
                        True,
                        f"reachable; its list of models cannot be read (through the proxy http://{at})",
                    )
                else:
                    with pytest.raises(NotConnected, match=f"through the proxy http://{at}, which"):
                        await sender.send(request())
                await sender.aclose()
            assert b"authorization: Bearer " + KEY.encode() in heads[0].replace(b"Authorization", b"authorization")

    asyncio.run(main())
    assert all(head.startswith(b"CONNECT 127.0.0.1:") for head in asked)
    assert not [head for head in asked if KEY.encode() in head]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        pass  # one side went away
    finally:
        writer.close()
