"""A small HTTP/1.1 server: keep-alive, bodies with Content-Length, one request at a time per connection.

It serves rehearsals on the loopback interface and nothing else: no TLS and no chunked requests; pipelined requests are
answered one after the other.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

MAX_HEAD_BYTES = 64 * 1024
# Far above the size of any prompt, and far below the memory of a laptop.
MAX_BODY_BYTES = 32 * 1024 * 1024

_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode("latin-1") for s in HTTPStatus}


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A whole request. Header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response with a JSON body. If `cut` is set, half of the body is sent and the connection is then closed."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False

    def encode(self, *, keep_alive: bool) -> bytes:
        """The bytes on the wire."""
        lines = [f"{name}: {value}\r\n" for name, value in self.headers.items()]
        lines.append(f"content-length: {len(self.body)}\r\n")
        if not keep_alive:
            lines.append("connection: close\r\n")
        head = "content-type: application/json\r\n" + "".join(lines) + "\r\n"
        return _STATUS_LINES[self.status] + head.encode("latin-1") + self.body


def error_response(
    status: int,
    message: str,
    *,
    code: str,
    kind: str = "invalid_request_error",
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """An error response in OpenAI's shape."""
    error = {"message": message, "type": kind, "param": None, "code": code}
    return HttpResponse(status, json.dumps({"error": error}).encode(), headers or {})


Respond = Callable[[HttpRequest], Awaitable[HttpResponse]]


class _MalformedError(Exception):
    """The bytes are no request that this server accepts; holds the response that says so."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


class HttpConnection(asyncio.Protocol):
    """One client connection; `respond` answers its requests, in the order in which they came.

    `connections` is the server's set of open connections, which the server closes when it stops. A client that
    disconnects cancels the request that is being answered, and so does `aclose`.
    """

    def __init__(self, respond: Respond, connections: set["HttpConnection"]) -> None:
        self._respond = respond
        self._connections = connections
        self._buffer = bytearray()
        self._head: tuple[HttpRequest, int] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._transport = None
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._answering is None:
            self._start_next()

    async def aclose(self) -> None:
        """Close the connection at once; returns when a request that was being answered has been cancelled."""
        self._abort()
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.wait([self._answering])

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _start_next(self) -> None:
        try:
            request = self._take_request()
        except _MalformedError as malformed:
            self._write(malformed.response, keep_alive=False)
            return
        if request is not None:
            self._answering = asyncio.get_running_loop().create_task(self._answer(request))

    async def _answer(self, request: HttpRequest) -> None:
        try:
            response = await self._respond(request)
        except Exception:
            self._abort()
            raise
        self._write(response, keep_alive=request.headers.get("connection", "").lower() != "close")
        self._answering = None
        if self._buffer and self._transport is not None:
            self._start_next()

    def _write(self, response: HttpResponse, *, keep_alive: bool) -> None:
        if self._transport is None:
            return
        wire = response.encode(keep_alive=keep_alive)
        if response.cut:
            self._transport.write(wire[: len(wire) - len(response.body) // 2 - 1])
            # close() flushes first, so the client receives the head and half of the body, and then the end.
            self._transport.close()
            return
        self._transport.write(wire)
        if not keep_alive:
            self._transport.close()

    def _take_request(self) -> HttpRequest | None:
        """Take a whole request off the buffer; `None` if some of it has not arrived yet."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise _MalformedError(error_response(431, "the request's head is too large", code="head_too_large"))
                return None
            request = _parse_head(bytes(self._buffer[:end]))
            self._head = request, _body_length(request.headers)
            del self._buffer[: end + 4]
            if request.headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request, length = self._head
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._head = None
        return HttpRequest(request.method, request.path, request.headers, body)


def _parse_head(head: bytes) -> HttpRequest:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _MalformedError(error_response(400, "this is not an HTTP/1.1 request", code="bad_request_line"))
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise _MalformedError(error_response(400, "a header has no colon", code="bad_header"))
        headers[name.lower()] = value.strip()
    return HttpRequest(parts[0], parts[1].partition("?")[0], headers, b"")


def _body_length(headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise _MalformedError(
            error_response(411, "send a Content-Length; chunked requests are not taken", code="length_required")
        )
    length = headers.get("content-length", "0")
    if not length.isascii() or not length.isdigit():
        raise _MalformedError(error_response(400, "Content-Length is not a number", code="bad_content_length"))
    if int(length) > MAX_BODY_BYTES:
        raise _MalformedError(
            error_response(413, f"a request has at most {MAX_BODY_BYTES} bytes", code="request_too_large")
        )
    return int(length)
