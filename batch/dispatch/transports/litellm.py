"""Sends to every provider that LiteLLM knows, at LiteLLM's speed: some 240 requests/s a core, 4 ms of CPU each.

Use the transport `openai` for servers that speak OpenAI's protocol, and this one for others.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import orjson

from batch.clock import WallClock
from batch.dispatch.request import Completion, Request
from batch.dispatch.transports.access import key_reference, proxy_for, resolve
from batch.dispatch.transports.client import NO_FILE_LEFT, is_want_of_files
from batch.dispatch.transports.keys import KEY_REFUSED, EndpointKey, renewed
from batch.dispatch.transports.masking import mask
from batch.dispatch.transports.rate_limit_headers import parse_rate_limits
from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.responses import MOST_ANSWER_BYTES, completion
from batch.dispatch.transports.words import cut, hiding
from batch.environment import Keys
from batch.errors import BadAnswer, ConnectionLost, DispatchError, NoFileLeft, NotConnected, Refused, TimedOut
from schemas.endpoints import EndpointSpec
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL

# The most characters of a LiteLLM message that are used; it may quote whole answers.
_MOST_MESSAGE = 4000

# No limit. With httpx's own limit of a hundred, further requests would wait inside it, time out there, and count as
# requests that may have been billed.
_NO_LIMIT = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0)


class LiteLLMTransport:
    """Sends to one endpoint through LiteLLM.

    LiteLLM's own retries are off: the dispatcher retries within the limits.
    """

    def __init__(self, endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock) -> None:
        import litellm

        litellm.suppress_debug_info = True
        litellm.telemetry = False
        litellm.drop_params = False
        _bind_clients()
        access = resolve(endpoint, keys)
        self._session = httpx.AsyncClient(trust_env=False, timeout=timeout_seconds, transport=_ProxiedTransport(keys))
        _bind(self._session)
        litellm.aclient_session = self._session
        self._calls: Mapping[str, Callable[..., Awaitable[Any]]] = {
            CHAT_URL: litellm.acompletion,
            COMPLETIONS_URL: litellm.atext_completion,
            EMBEDDINGS_URL: litellm.aembedding,
            RESPONSES_URL: litellm.aresponses,
        }
        self._timeout_seconds = timeout_seconds
        self._wall = wall
        self._provider = endpoint.provider
        self._options: dict[str, Any] = {
            "model": endpoint.model,
            "timeout": timeout_seconds,
            "max_retries": 0,
            "num_retries": 0,
        }
        if endpoint.url is not None:
            self._options["api_base"] = endpoint.base_url
        version = endpoint.api_version or dict(parse_qsl(urlsplit(endpoint.url or "").query)).get("api-version")
        if version is not None:
            self._options["api_version"] = version
        if access.headers:
            self._options["extra_headers"] = dict(access.headers)
        self._secrets = access.secrets
        self._key = EndpointKey(key_reference(endpoint), keys)
        self._take_key()

    async def send(self, request: Request) -> Completion:
        if await self._key.follow_file():
            self._take_key()
        asked_with = self._key.value
        try:
            return await self._sent(request)
        except Refused as refused:
            if refused.status != KEY_REFUSED or not await renewed(self._key, asked_with):
                raise
        self._take_key()
        return await self._sent(request)

    async def _sent(self, request: Request) -> Completion:
        try:
            # LiteLLM's own timeout is for each read, and a server may send one byte after another forever.
            async with asyncio.timeout(self._timeout_seconds):
                answer = await self._calls[request.url](**orjson.loads(request.body), **self._options)
        except Exception as error:
            # Depending on the provider, LiteLLM raises its own errors, OpenAI's, httpx's or a bare ValueError. All of
            # them are translated here.
            raise self._translated(error, request.body) from error
        headers = _headers(answer)
        return completion(
            self._mask(answer.model_dump_json(exclude_none=True).encode()),
            request.url,
            parse_rate_limits(headers.get, self._provider, self._wall),
            header=headers.get,
            wall=self._wall,
            asked=request.body,
            hide=self._hide,
        )

    async def aclose(self) -> None:
        await self._session.aclose()

    def _take_key(self) -> None:
        """Use the present key, and mask it and recent ones in answers."""
        if self._key.value is not None:
            self._options["api_key"] = self._key.value
        secrets = (*self._key.remembered, *self._secrets)
        self._mask = mask(secrets)
        self._hide = hiding(*secrets)

    def _translated(self, error: Exception, asked: bytes) -> DispatchError:
        import litellm

        causes = list(_causes(error))
        if any(isinstance(cause, OSError) and is_want_of_files(cause) for cause in causes):
            return NoFileLeft(NO_FILE_LEFT)
        for cause in causes:
            if isinstance(cause, BadAnswer):
                return cause
            # LiteLLM turns both of these into a 500.
            if isinstance(cause, httpx.ConnectError):
                return NotConnected("no connection", words=cut(self._hide(str(cause))))
            if type(cause) is litellm.exceptions.openai.OpenAIError:
                return Refused("LiteLLM has no credentials for it; name the variable that holds them in api_key_env")
        if isinstance(error, litellm.exceptions.Timeout | TimeoutError | httpx.TimeoutException):
            return TimedOut("no whole answer in time; it may have been billed")
        shown: Any = {"asked": asked, "hide": self._hide}
        response = _response(error)
        if response is not None:
            raw = self._mask(response.content)
            return refusal(response.status_code, raw, response.headers.get, self._provider, self._wall, **shown)
        if isinstance(error, litellm.exceptions.APIConnectionError | httpx.TransportError):
            # LiteLLM raises this for unexpected faults of its own too, so it is unknown whether anything was sent.
            return ConnectionLost(f"no answer: {type(error).__name__}")
        status = getattr(error, "status_code", None)
        if not isinstance(status, int):
            return BadAnswer(f"LiteLLM could not read the answer: {type(error).__name__}")
        codes = {key: getattr(error, key, None) for key in ("code", "type")}
        said = {"message": _message(error)} | {k: v for k, v in codes.items() if isinstance(v, str)}
        body = self._mask(orjson.dumps({"error": said}))
        headers = getattr(error, "litellm_response_headers", None) or {}
        return refusal(status, body, headers.get, self._provider, self._wall, **shown)


class _ProxiedTransport(httpx.AsyncBaseTransport):
    """Connects to each server directly or through the proxy that the environment names for it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = proxy_for(f"{request.url.scheme}://{request.url.netloc.decode()}", self._keys)
        if proxy not in self._transports:
            self._transports[proxy] = httpx.AsyncHTTPTransport(proxy=proxy, trust_env=False, limits=_NO_LIMIT)
        return await self._transports[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()


class _Bounded(httpx.AsyncByteStream):
    """A response body; reading it raises BadAnswer once it is too long."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._stream:
            size += len(chunk)
            if size > MOST_ANSWER_BYTES:
                raise BadAnswer(f"the answer is longer than {MOST_ANSWER_BYTES >> 20} MiB", status=200)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx.Response) -> None:
    assert isinstance(response.stream, httpx.AsyncByteStream)
    response.stream = _Bounded(response.stream)


def _bind(client: httpx.AsyncClient) -> None:
    """Make the client follow no redirects, which carry prompts and keys elsewhere, and read no endless answer."""
    client.follow_redirects = False
    client.event_hooks = {**client.event_hooks, "response": [_bound, *client.event_hooks["response"]]}


@cache
def _bind_clients() -> None:
    """Apply `_bind` to the clients that LiteLLM builds for other protocols than OpenAI's: no option stops their
    redirects.
    """
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    create: Callable[..., httpx.AsyncClient] = AsyncHTTPHandler.create_client

    def create_bound(*arguments: Any, **options: Any) -> httpx.AsyncClient:
        client = create(*arguments, **options)
        _bind(client)
        return client

    AsyncHTTPHandler.create_client = create_bound
    _bind(litellm.module_level_aclient.client)


def _message(error: Exception) -> str:
    """LiteLLM's message for an error without a response of the provider."""
    return str(getattr(error, "message", None) or error)[:_MOST_MESSAGE]


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and its chain of causes."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _headers(answer: Any) -> dict[str, str]:
    """The provider's own headers. LiteLLM passes them on with a prefix, beside headers that it derives from them."""
    hidden = getattr(answer, "_hidden_params", None) or {}
    given = hidden.get("additional_headers") or {}
    return {name.lower().removeprefix("llm_provider-"): str(value) for name, value in given.items()}


def _response(error: BaseException) -> httpx.Response | None:
    """The provider's refusal as it came: LiteLLM's own errors change its status and lose its codes and headers.

    The innermost cause carries it; the errors in between carry empty stand-ins.
    """
    found = None
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, httpx.Response) and response.status_code >= 300 and response.headers:
            found = response
    return found if found is not None and found.is_stream_consumed else None
