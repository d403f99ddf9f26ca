"""Answers, keys and servers that the tests of transports share."""

import asyncio
import socket

from batch.limits import Allowance
from tests.dispatch.transports.raw_server import Handler

KEY = "sk-very-secret"
NOW = 1_700_000_000.0
GOOD = b'{"choices":[{"message":{"content":"yes"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}'
LIMITS = ("x-ratelimit-limit-requests: 60", "X-RateLimit-Remaining-Requests: 59", "x-ratelimit-reset-requests: 1s")
SAID = (Allowance("requests", 60, 59, 1),)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def streams_for_ever(closed: asyncio.Event) -> Handler:
    """Return a handler that sends chunks without end, and sets `closed` once the client has closed the connection."""

    async def handler(request: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
                await writer.drain()
        finally:
            closed.set()

    return handler


def no_keys(name: str) -> str | None:
    """The keys of a process whose environment is empty."""
    return None
