"""Direct HTTP to any OpenAI-compatible server, on pyreqwest: 70 us of CPU a request where aiohttp takes 125."""

import json
from dataclasses import replace
from urllib.parse import urlsplit

import orjson

from batch.clock import WallClock
from batch.dispatch.request import Completion, Request
from batch.dispatch.transports.access import key_header, key_reference, resolve
from batch.dispatch.transports.client import HttpAnswer, KeyHeader
from batch.dispatch.transports.client_choice import build_client
from batch.dispatch.transports.keys import KEY_REFUSED, EndpointKey, renewed
from batch.dispatch.transports.masking import mask
from batch.dispatch.transports.rate_limit_headers import Header, parse_rate_limits
from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.responses import MOST_ANSWER_BYTES, completion
from batch.dispatch.transports.words import hiding
from batch.environment import Keys
from batch.errors import DispatchError
from batch.limits import Allowance
from schemas.endpoints import EndpointSpec
from schemas.openai_batch import CHAT_URL, COMPLETIONS_URL

# Looking for six headers takes a microsecond and a half. After this many answers without any, only one answer in 32 is
# checked.
_SILENT_ANSWERS = 100
_ASK_AGAIN = 32

# Other APIs do not know `stream`, and their servers may refuse it.
_STREAMABLE = frozenset({CHAT_URL, COMPLETIONS_URL})


class OpenAITransport:
    """Sends to one endpoint by OpenAI's protocol.

    Redirects are not followed: a 307 would carry prompt and key to another server.
    """

    def __init__(self, endpoint: EndpointSpec, *, timeout_seconds: float, keys: Keys, wall: WallClock) -> None:
        access = resolve(endpoint, keys)
        self._wall = wall
        self._provider = endpoint.provider
        self._endpoint = endpoint
        self._key = EndpointKey(key_reference(endpoint), keys)
        self._secrets = access.secrets
        self._client = build_client(
            # A key that may change is sent with each request instead.
            access,
            None if self._key.renewable else self._key_header(),
            timeout_seconds=timeout_seconds,
            most_bytes=MOST_ANSWER_BYTES,
        )
        self._path = urlsplit(access.base).path
        self._prefix = b'{"model":' + json.dumps(endpoint.model).encode() + b","
        self._unstreamed = self._prefix + b'"stream":false,'
        self._silent = 0
        self._hide_secrets()

    async def send(self, request: Request) -> Completion:
        # Some gateways stream an answer unless the request says `stream: false`.
        streams = request.url in _STREAMABLE and not _says_stream(request.body)
        body = (self._unstreamed if streams else self._prefix) + request.body[1:]
        if self._key.renewable:
            status, raw, header = await self._with_renewed_key(request.url, body)
        else:
            status, raw, header = await self._client.ask("POST", request.url, body)
        raw = self._mask(raw)
        if not 200 <= status < 300:
            raise refusal(
                status,
                raw,
                header,
                self._provider,
                self._wall,
                asked=request.body,
                path=self._path + request.url.removeprefix("/v1"),
                hide=self._hide,
            )
        try:
            answer = completion(
                raw,
                request.url,
                self._told(header),
                header=header,
                wall=self._wall,
                asked=request.body,
                hide=self._hide,
            )
        except DispatchError as error:
            if error.body is not None:
                error.body = self._mask(error.body)
            raise
        # An answer assembled from a stream may hold a secret that was split between pieces of the stream.
        return answer if answer.raw is raw else replace(answer, raw=self._mask(answer.raw))

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _with_renewed_key(self, path: str, body: bytes) -> HttpAnswer:
        """Make one attempt, and a second one if the server refused a key that has been replaced since."""
        if await self._key.follow_file():
            self._hide_secrets()
        asked_with = self._key.value
        answer = await self._client.ask("POST", path, body, self._key_header())
        if answer[0] != KEY_REFUSED or not await renewed(self._key, asked_with):
            return answer
        self._hide_secrets()
        return await self._client.ask("POST", path, body, self._key_header())

    def _key_header(self) -> KeyHeader:
        return key_header(self._endpoint, self._key.value) if self._key.value is not None else None

    def _hide_secrets(self) -> None:
        """Mask the present secrets, and recently replaced keys, in answers from now on."""
        secrets = (*self._key.remembered, *self._secrets)
        self._mask = mask(secrets)
        self._hide = hiding(*secrets)

    def _told(self, header: Header) -> tuple[Allowance, ...]:
        """What a good answer states about limits. If earlier answers stated nothing for long, only some are checked."""
        self._silent += 1
        if self._silent > _SILENT_ANSWERS and self._silent % _ASK_AGAIN:
            return ()
        try:
            said = parse_rate_limits(header, self._provider, self._wall)
        except ValueError:
            # One of the headers is not ASCII.
            return ()
        if said:
            self._silent = 0
        return said


def _says_stream(body: bytes) -> bool:
    """Does the row itself set `stream`? (Within a JSON string the quotes would be escaped.)"""
    return b'"stream":' in body and "stream" in orjson.loads(body)
