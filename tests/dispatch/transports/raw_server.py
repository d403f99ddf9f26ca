"""A loopback server that sends exactly the bytes it is given, and keeps the requests it received."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class RawServer:
    """A server on one loopback port, as its tests see it."""

    url: str = ""
    received: list[bytes] = field(default_factory=list)
    """The requests received, each with its headers and body."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a request has arrived."""


@asynccontextmanager
async def raw_server(handler: Handler) -> AsyncIterator[RawServer]:
    """Serve inside the `async with` block; the connection is closed once `handler` returns."""
    served = RawServer()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:"))
            request = head + await reader.readexactly(length)
            served.received.append(request)
            served.arrived.set()
            await handler(request, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the client went away, as some tests want it to
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield served
    finally:
        server.close()
        await server.wait_closed()


def http(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """Return a whole HTTP/1.1 response."""
    lines = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "content-type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(answer: bytes) -> Handler:
    """Return a handler that writes these bytes."""

    async def handler(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return handler
