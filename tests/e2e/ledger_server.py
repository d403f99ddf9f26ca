"""A server that writes every row it is asked for into a file before it answers, so that what was sent can be counted.

`python -m tests.e2e.ledger_server FILE` serves until it is ended, and prints its port first.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LATENCY_SECONDS = 0.02
MARKER = re.compile(rb"row (\d{5})")
MARK = b"%05d\n"
MARK_BYTES = len(MARK % 0)
REFUSED = b"Refuse this."
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Ledger:
    """The server's address, and what it has seen so far."""

    url: str
    path: Path

    def __len__(self) -> int:
        """Requests seen."""
        return self.path.stat().st_size // MARK_BYTES

    def rows(self, first: int = 0) -> list[int]:
        """The row of each request, in the order they came, from request `first` on."""
        return [int(mark) for mark in self.path.read_bytes()[first * MARK_BYTES :].split()]


@contextmanager
def ledger_server(folder: Path) -> Iterator[Ledger]:
    """A running server, in a process of its own."""
    path = folder / "ledger"
    path.touch()
    command = [sys.executable, "-m", "tests.e2e.ledger_server", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Ledger(f"http://127.0.0.1:{int(process.stdout.readline())}/v1", path)
        finally:
            process.kill()


def answer(row: int) -> bytes:
    """The same answer to the same row, every time."""
    completion = {
        "id": f"chatcmpl-{row:05}",
        "object": "chat.completion",
        "created": 0,
        "model": "ledger",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content(row)}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": 5 + row % 7,
            "completion_tokens": 3 + row % 11,
            "total_tokens": 8 + row % 7 + row % 11,
        },
    }
    return json.dumps(completion).encode()


def refusal(row: int) -> bytes:
    """What is answered to a row whose prompt says REFUSED: its fault, and no other answer the next time."""
    return json.dumps({"error": {"message": f"row {row:05} is refused", "type": "invalid_request_error"}}).encode()


def content(row: int) -> str:
    """What is answered to a row."""
    return f"the answer to row {row:05}"


async def serve(path: Path) -> None:
    """Answer until the process ends."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                marker = MARKER.search(body)
                assert marker is not None, "every prompt names its row"
                row = int(marker[1])
                os.write(descriptor, MARK % row)
                await asyncio.sleep(LATENCY_SECONDS)
                status, raw = (b"400 Bad Request", refusal(row)) if REFUSED in body else (b"200 OK", answer(row))
                writer.write(
                    b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                    % (status, len(raw), raw)
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client is gone, which is what these tests are about.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
