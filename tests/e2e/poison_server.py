"""A server that answers each prompt as badly as the prompt asks for: `answer:html` gets HTML, and so on."""

import asyncio
import gzip
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import orjson

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

ASKED = re.compile(rb"answer:([a-z0-9_]+)")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CHUNK = 1 << 16
ONE_LONG_CHUNK = b"%x\r\n%b\r\n" % (CHUNK, b"x" * CHUNK)
GOOD_USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
CONTENT_BYTES = 4_000_000


def chat(content: str | None = "fine", **others: object) -> bytes:
    """A completion as it should be, but for `others`; those that are `...` are left out."""
    message = {"role": "assistant", "content": content}
    answer = {
        "id": "chatcmpl-0",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": GOOD_USAGE,
        **others,
    }
    return orjson.dumps({key: value for key, value in answer.items() if value is not ...})


GOOD = chat()
IN_MESSAGE = GOOD.replace(b'"fine"', b"%b")


def body(raw: bytes, status: bytes = b"200 OK", *headers: bytes) -> Answer:
    """A whole answer with this body."""
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(raw), *(headers or (b"content-type: application/json",))]
    return wire(b"\r\n".join(head) + b"\r\n\r\n" + raw)


def large(make: Callable[[], bytes], *headers: bytes) -> Answer:
    """A whole answer whose body is made when it is first asked for, not wherever tests are only listed."""
    made = cache(lambda: body(make(), b"200 OK", *headers))

    async def answer(writer: asyncio.StreamWriter) -> None:
        await made()(writer)

    return answer


def wire(raw: bytes, *, then_close: bool = False) -> Answer:
    """These bytes and no others."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if then_close:
            raise ConnectionAbortedError

    return answer


def chunks(chunk: bytes, every_seconds: float) -> Answer:
    """A body that never ends."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
            await asyncio.sleep(every_seconds)

    return answer


def _nested(levels: int, opening: bytes = b"[") -> bytes:
    return GOOD[:-1] + b',"deep":' + opening * levels + b"]" * levels + b"}"


# Answers that are as good as any.
FINE: dict[str, Answer] = {
    "fine": body(GOOD),
    "nul": body(IN_MESSAGE % rb'"a\u0000b"'),
    "separators": body(IN_MESSAGE % '"a\u2028b\u0085c"'.encode()),
    "long": body(chat("x" * CONTENT_BYTES)),
    "deep_and_pretty": body(_nested(300, b"[\r\n")),
    "no_usage": body(chat(usage=...)),
    "usage_of_nonsense": body(chat(usage={"prompt_tokens": 2**64 - 1, "completion_tokens": -1})),
    "null_content": body(chat(None)),
    "latin1": body(IN_MESSAGE % b'"caf\xe9"', b"200 OK", b"content-type: text/plain; charset=latin-1"),
    "surrogate": body(IN_MESSAGE % rb'"\ud83d"'),
    "nan": body(GOOD[:-1] + b',"logprob":NaN}'),
}
# What each other answer makes of its row.
BAD: dict[str, tuple[str, Answer]] = {
    "refused": ("bad_request", body(b'{"error":{"message":"too poisonous","code":"x"}}', b"400 Bad Request")),
    "html": ("bad_answer", body(b"<html>welcome</html>", b"200 OK", b"content-type: text/html")),
    "utf16": ("bad_answer", body(GOOD.decode().encode("utf-16"))),
    "gzip": ("bad_answer", body(gzip.compress(GOOD, mtime=0), b"200 OK", b"content-type: application/json")),
    "gzip_bomb": ("bad_answer", large(lambda: gzip.compress(bytes(200 << 20), mtime=0), b"content-encoding: gzip")),
    "no_choices": ("bad_answer", body(chat(choices=...))),
    "null_choices": ("no_choices", body(chat(choices=None))),
    "empty": ("bad_answer", body(b"")),
    "deep": ("bad_answer", body(_nested(100_000))),
    "too_long": ("bad_answer", large(lambda: chat("x" * 100_000_000))),
    "endless": ("bad_answer", chunks(ONE_LONG_CHUNK, 0.0)),
    "dripping": ("timeout", chunks(b"1\r\n \r\n", 0.05)),
    "truncated": (
        "connection_lost",
        wire(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + GOOD, then_close=True),
    ),
    "no_http": ("connection_lost", wire(b"what do you want?\r\n\r\n", then_close=True)),
    "nothing": ("connection_lost", wire(b"", then_close=True)),
}
_ANSWERS = {name.encode(): answer for name, answer in FINE.items()} | {
    name.encode(): answer for name, (_, answer) in BAD.items()
}


@dataclass
class PoisonServer:
    """One port on loopback."""

    url: str = ""
    asked: list[bytes] = field(default_factory=list)
    """The answers asked for, in order of arrival."""


@contextmanager
def poison_server() -> Iterator[PoisonServer]:
    """Serve meanwhile, from a thread."""
    served = PoisonServer()
    ready = threading.Event()
    loop: asyncio.AbstractEventLoop
    ended: asyncio.Event

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                left = int(length[1]) if length else 0
                found = None
                while left:
                    piece = await reader.read(min(left, CHUNK))
                    left -= len(piece)
                    if not piece:
                        return
                    # The word is in the first piece of a prompt, and in no two.
                    found = found or ASKED.search(piece)
                name = found[1] if found else b"fine"
                served.asked.append(name)
                await _ANSWERS[name](writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        nonlocal loop, ended
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        ready.set()
        await ended.wait()
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield served
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
