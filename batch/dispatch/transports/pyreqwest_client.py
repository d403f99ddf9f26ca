"""HTTP over TCP, by pyreqwest."""

from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.response import Response

from batch.dispatch.transports.access import Access
from batch.dispatch.transports.client import HttpAnswer, KeyHeader, not_connected, too_long
from batch.dispatch.transports.words import hiding
from batch.errors import BadRequest, ConnectionLost, DispatchError, SpecError, TimedOut

# Connecting ends well before the attempt does: pyreqwest gives a timeout the same class whether or not anything was
# sent, and only one that hits while connecting carries hyper's `Connect`.
_LONGEST_CONNECT_SECONDS = 30.0
_CONNECT_SHARE = 0.5
# Shorter than the idle timeouts of common servers, so that our side closes first, and no request is sent into a closing
# connection.
_IDLE_SECONDS = 4.0


class PyreqwestClient:
    """Connections to one endpoint, directly or through a proxy. Redirects are not followed."""

    def __init__(self, access: Access, key: KeyHeader, *, timeout_seconds: float, most_bytes: int) -> None:
        """
        Args:
            key: the header that is sent where a call brings no other one.
            timeout_seconds: for the whole of a request and its response.
            most_bytes: of an answer's body, decompressed.

        Raises:
            SpecError: a certificate or a proxy cannot be used.
        """
        self._access = access
        self._timeout_seconds = timeout_seconds
        self._most_bytes = most_bytes
        self._client = _client(access, key, timeout_seconds)
        self._urls: dict[str, Url] = {}

    async def ask(self, method: str, path: str, body: bytes | None = None, key: KeyHeader = None) -> HttpAnswer:
        """As `HttpClient.ask`."""
        url = self._urls.get(path) or self._url(path)
        try:
            asked = self._client.request(method, url)
            if body is not None:
                asked = asked.body_bytes(body)
            if key is not None:
                asked = asked.header(*key, is_sensitive=True)
            async with asked.build_streamed() as response:
                return response.status, await self._whole(response), response.get_header
        except PyreqwestError as error:
            # pyreqwest's errors hold the whole url.
            raise self._translated(error) from (None if self._access.secrets else error)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _whole(self, response: Response) -> bytes:
        """Read and decompress the body. Raises BadAnswer once it is too long, which closes the connection."""
        reader = response.body_reader
        chunks = []
        size = 0
        while (chunk := await reader.read_chunk()) is not None:
            size += len(chunk)
            if size > self._most_bytes:
                raise too_long(self._most_bytes, response.status)
            chunks.append(chunk)
        return b"".join(chunks)

    def _url(self, path: str) -> Url:
        """Parsed once: pyreqwest parses a text for each request."""
        try:
            url = self._urls[path] = Url(self._access.url(path))
        except ValueError as error:
            raise BadRequest("the request cannot be built") from error
        return url

    def _translated(self, error: PyreqwestError) -> DispatchError:
        if isinstance(error, BuilderError):
            return BadRequest("the request cannot be built")
        # pyreqwest raises ConnectError for a connection that breaks later, too; only hyper's own `Connect` means that
        # nothing was sent.
        causes = _causes(error)
        if "client error (Connect)" in causes:
            return not_connected(causes[-1], self._access)
        if isinstance(error, RequestTimeoutError):
            return TimedOut(f"no whole answer within {self._timeout_seconds:g} seconds; it may have been billed")
        if "error decoding response body" in causes and "error reading a body from connection" not in causes:
            # pyreqwest reads ahead, so the status of such a response is unknown: it may be a refusal.
            return ConnectionLost("the answer cannot be decompressed: it is not what its Content-Encoding says")
        return ConnectionLost("the connection broke before the answer was whole")


def _client(access: Access, key: KeyHeader, timeout_seconds: float) -> Client:
    headers = {"content-type": "application/json", **access.headers}
    if key is not None:
        headers[key[0]] = key[1]
    builder = (
        # pyreqwest's own way to a proxy reads the environment, which differs from process to process.
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .user_agent("batchrouter")
        .default_headers(headers)
        .timeout(timedelta(seconds=timeout_seconds))
        .connect_timeout(timedelta(seconds=min(timeout_seconds * _CONNECT_SHARE, _LONGEST_CONNECT_SECONDS)))
        .pool_idle_timeout(timedelta(seconds=_IDLE_SECONDS))
    )
    try:
        if access.proxy is not None:
            builder = builder.proxy(ProxyBuilder.all(access.proxy))
        for certificate in access.authorities:
            builder = builder.add_root_certificate_pem(certificate)
        if access.identity is not None:
            builder = builder.identity_pem(access.identity)
        return builder.build()
    except (PyreqwestError, ValueError) as error:
        # pyreqwest's message may repeat a header or a proxy's url.
        reason = hiding(*access.secrets, *(key or ()))(str(error))
        raise SpecError(
            f"endpoint {access.base}: a certificate, a header or a proxy cannot be used: {reason}"
        ) from None


def _causes(error: PyreqwestError) -> list[str]:
    details = getattr(error, "details", None) or {}
    return [cause["message"] for cause in details.get("causes") or ()]
