"""Direct HTTP to any OpenAI-compatible server, on pyreqwest: 70 us of CPU a request where aiohttp takes 125."""

import json
from datetime import timedelta

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.response import Response

from batch.clock import WallClock
from batch.dispatch.request import Allowance, Completion, Request
from batch.dispatch.transports import Keys
from batch.dispatch.transports.allowances import Header, told
from batch.dispatch.transports.answers import MOST_ANSWER_BYTES, completion, long_key, masked, refusal
from batch.dispatch.transports.words import cut, hiding
from batch.errors import BadAnswer, BadRequest, ConnectionLost, DispatchError, NotConnected, SpecError, TimedOut
from schemas.endpoints import EndpointSpec

# Connecting ends well before the attempt does: pyreqwest gives a timeout the same class whether or not anything was
# sent, and only one that hits while connecting carries hyper's `Connect`.
_LONGEST_CONNECT_SECONDS = 30.0
_CONNECT_SHARE = 0.5
# Shorter than the idle timeouts of the usual servers, so that we close first and do not send into a closing connection.
_IDLE_SECONDS = 4.0


# Looking for six headers takes a microsecond and a half: after so many answers without, one in 32 is looked at.
_SILENT_ANSWERS = 100
_ASK_AGAIN = 32


class OpenAITransport:
    """One endpoint's connections. Redirects are refused: a 307 would carry prompt and key to a stranger."""

    def __init__(self, endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock) -> None:
        if endpoint.url is None:
            raise SpecError("an endpoint has no url: give `url`, or set COMPLETION_BASE_URL or OPENAI_BASE_URL")
        self._base = endpoint.url
        self._wall = wall
        self._provider = endpoint.provider
        self._timeout_seconds = timeout_seconds
        self._client = _client(endpoint, timeout_seconds, keys)
        key = keys(endpoint.api_key_env) if endpoint.api_key_env is not None else None
        self._key = long_key(key)
        self._hide = hiding(key)
        self._prefix = b'{"model":' + json.dumps(endpoint.model).encode() + b","
        self._urls: dict[str, Url] = {}
        self._silent = 0

    async def send(self, request: Request, endpoint: EndpointSpec) -> Completion:
        url = self._urls.get(request.url) or self._url(request.url)
        try:
            attempt = self._client.post(url).body_bytes(self._prefix + request.body[1:]).build_streamed()
            async with attempt as response:
                raw = masked(await _whole(response), self._key)
        except PyreqwestError as error:
            raise self._translated(error) from error
        if 200 <= response.status < 300:
            return completion(raw, request.url, self._told(response))
        raise refusal(
            response.status,
            raw,
            _legible(response),
            self._provider,
            self._wall,
            asked=request.body,
            path=url.path,
            hide=self._hide,
        )

    async def aclose(self) -> None:
        await self._client.close()

    def _url(self, path: str) -> Url:
        """Parsed once: pyreqwest parses a text for each request."""
        try:
            # `url` in the job file ends in /v1, and so do the rows' paths begin.
            url = self._urls[path] = Url(self._base + path.removeprefix("/v1"))
        except ValueError as error:
            raise BadRequest("the request cannot be built") from error
        return url

    def _told(self, response: Response) -> tuple[Allowance, ...]:
        """What a good answer says about the limits. A server that has long said nothing is asked now and then."""
        self._silent += 1
        if self._silent > _SILENT_ANSWERS and self._silent % _ASK_AGAIN:
            return ()
        try:
            said = told(response.get_header, self._provider, self._wall)
        except ValueError:
            # One of the headers is not ASCII.
            return ()
        if said:
            self._silent = 0
        return said

    def _translated(self, error: PyreqwestError) -> DispatchError:
        if isinstance(error, BuilderError):
            return BadRequest("the request cannot be built")
        # pyreqwest names a broken exchange ConnectError too; only hyper's own `Connect` says that nothing was sent.
        causes = _causes(error)
        if "client error (Connect)" in causes:
            return NotConnected(_not_connected(causes[-1]), words=cut(causes[-1]))
        if isinstance(error, RequestTimeoutError):
            return TimedOut(f"no whole answer within {self._timeout_seconds:g} seconds; it may have been billed")
        return ConnectionLost("the connection broke before the answer was whole")


def _client(endpoint: EndpointSpec, timeout_seconds: float, keys: Keys) -> Client:
    headers = {"content-type": "application/json"}
    if endpoint.api_key_env is not None:
        key = keys(endpoint.api_key_env)
        if not key:
            raise SpecError(f"endpoint {endpoint.url}: the environment variable {endpoint.api_key_env} is not set")
        if endpoint.provider == "azure":
            headers["api-key"] = key
        else:
            headers["authorization"] = f"Bearer {key}"
    return (
        ClientBuilder()
        .no_proxy()
        .follow_redirects(False)
        .user_agent("batchrouter")
        .default_headers(headers)
        .timeout(timedelta(seconds=timeout_seconds))
        .connect_timeout(timedelta(seconds=min(timeout_seconds * _CONNECT_SHARE, _LONGEST_CONNECT_SECONDS)))
        .pool_idle_timeout(timedelta(seconds=_IDLE_SECONDS))
        .build()
    )


async def _whole(response: Response) -> bytes:
    """The body, decompressed. Raises BadAnswer once it is too long; the connection is closed then."""
    reader = response.body_reader
    chunks = []
    size = 0
    while (chunk := await reader.read_chunk()) is not None:
        size += len(chunk)
        if size > MOST_ANSWER_BYTES:
            raise BadAnswer(f"the answer is longer than {MOST_ANSWER_BYTES >> 20} MiB", status=response.status)
        chunks.append(chunk)
    return b"".join(chunks)


def _not_connected(cause: str) -> str:
    """Why there is no connection, where the cause itself does not say it in words that people know."""
    if "certificate" in cause:
        return "no connection: the server's certificate is not trusted"
    if "corrupt message" in cause:
        return "no connection: the server does not speak TLS, as https asks for"
    return "no connection"


def _causes(error: PyreqwestError) -> list[str]:
    details = getattr(error, "details", None) or {}
    return [cause["message"] for cause in details.get("causes") or ()]


def _legible(response: Response) -> Header:
    """The headers of an answer; one that is not ASCII is as if it were not there."""

    def header(name: str) -> str | None:
        try:
            return response.get_header(name)
        except ValueError:
            return None

    return header
