"""HTTP over Unix domain sockets, by httpx: pyreqwest does not support them."""

import asyncio
import ssl
from tempfile import NamedTemporaryFile

import httpx

from batch.dispatch.transports.access import Access
from batch.dispatch.transports.client import HttpAnswer, KeyHeader, not_connected, too_long
from batch.errors import BadRequest, ConnectionLost, DispatchError, TimedOut

# No limit: httpx would send a hundred requests and make the others wait unseen.
_NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0)


class SocketClient:
    """Connections to one endpoint on this machine. Redirects are not followed."""

    def __init__(self, access: Access, key: KeyHeader, *, timeout_seconds: float, most_bytes: int) -> None:
        """As `PyreqwestClient`."""
        assert access.socket is not None
        self._access = access
        self._timeout_seconds = timeout_seconds
        self._most_bytes = most_bytes
        headers = {"user-agent": "batchrouter", "content-type": "application/json", **access.headers}
        if key is not None:
            headers[key[0]] = key[1]
        transport = httpx.AsyncHTTPTransport(
            uds=access.socket, verify=_trust(access), limits=_NO_LIMIT, trust_env=False
        )
        # httpx's timeout is for each step; the one for the whole is kept here.
        self._client = httpx.AsyncClient(transport=transport, headers=headers, timeout=timeout_seconds, trust_env=False)

    async def ask(self, method: str, path: str, body: bytes | None = None, key: KeyHeader = None) -> HttpAnswer:
        """As `HttpClient.ask`."""
        headers = {key[0]: key[1]} if key is not None else None
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._client.stream(method, self._access.url(path), content=body, headers=headers) as response,
            ):
                chunks = []
                size = 0
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > self._most_bytes:
                        raise too_long(self._most_bytes, response.status_code)
                    chunks.append(chunk)
                return response.status_code, b"".join(chunks), response.headers.get
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, TimeoutError) as error:
            raise self._translated(error) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _translated(self, error: Exception) -> DispatchError:
        if isinstance(error, httpx.ConnectError):
            return not_connected(str(error), self._access)
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return TimedOut(f"no whole answer within {self._timeout_seconds:g} seconds; it may have been billed")
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return BadRequest("the request cannot be built")
        return ConnectionLost("the connection broke before the answer was whole")


def _trust(access: Access) -> ssl.SSLContext:
    context = httpx.create_ssl_context(trust_env=False)
    if access.authorities:
        context.load_verify_locations(cadata=b"\n".join(access.authorities).decode())
    if access.identity is not None:
        # Python reads certificates from files only. This file is readable by its owner only, and is removed at once.
        with NamedTemporaryFile(prefix="batchrouter-") as file:
            file.write(access.identity)
            file.flush()
            context.load_cert_chain(file.name)
    return context
