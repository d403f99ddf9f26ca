import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from batch.errors import SpecError
from jobs.rehearsal.answers import answer_source
from jobs.rehearsal.http import MAX_BODY_BYTES
from jobs.rehearsal.server import Rehearsal, run_rehearsal
from schemas.rehearse import RehearsalEndpointSpec, RehearsalSpec

CHAT = "/v1/chat/completions"


def chat(prompt: str = "Why is the sky blue?", **more: object) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


# Over HTTP


def spec_of(*endpoints: dict[str, Any]) -> RehearsalSpec:
    return RehearsalSpec.model_validate({"endpoints": list(endpoints)})


def test_one_process_serves_every_endpoint() -> None:
    """Each endpoint has its own URL and model and answers /health, and /stats on any of them covers all."""

    async def main() -> None:
        async with (
            Rehearsal(spec_of({"model": "small"}, {"model": "large"})) as rehearsal,
            aiohttp.ClientSession() as session,
        ):
            assert len(set(rehearsal.urls)) == 2
            for url, model in zip(rehearsal.urls, ("small", "large"), strict=True):
                root = url.removesuffix("/v1")
                async with session.get(f"{root}/health") as health:
                    assert health.status == 200
                async with session.get(f"{url}/models") as models:
                    assert [m["id"] for m in (await models.json())["data"]] == [model]
                async with session.post(f"{url}/chat/completions", json={**chat(), "model": model}) as answer:
                    assert answer.status == 200
            async with session.get(f"{root}/stats") as stats:
                counted = (await stats.json())["endpoints"]
            assert [(e["model"], e["accepted"]) for e in counted] == [("small", 1), ("large", 1)]

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["drop", "timeout"])
def test_rehearsed_drops_and_timeouts_fail_at_the_client(fault: str) -> None:
    """A dropped answer ends the connection early; a timed-out one never comes, so the client times out."""

    async def main() -> None:
        async with (
            Rehearsal(spec_of({"model": "m", "faults": {fault: 1.0}})) as rehearsal,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1)) as session,
        ):
            url = f"{rehearsal.urls[0]}/chat/completions"
            expected = aiohttp.ClientPayloadError if fault == "drop" else TimeoutError
            with pytest.raises(expected):
                async with session.post(url, json=chat()) as response:
                    await response.read()

    asyncio.run(main())


async def exchange(url: str, *pieces: bytes) -> bytes:
    """Send `pieces` one after the other, then read until the server closes."""
    host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def wire(body: bytes, *headers: str) -> bytes:
    lines = [f"POST {CHAT} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def one_by_one(data: bytes) -> Iterable[bytes]:
    return (data[i : i + 1] for i in range(len(data)))


def test_requests_survive_being_cut_into_bytes_or_glued_together() -> None:
    """However the bytes are packed, two requests on one connection get two answers in order."""
    first = wire(json.dumps(chat("first")).encode())
    second = wire(json.dumps(chat("second")).encode(), "connection: close")

    async def main() -> None:
        async with Rehearsal(spec_of({"model": "m", "answers": "echo"})) as rehearsal:
            glued = await exchange(rehearsal.urls[0], first + second)
            cut = await exchange(rehearsal.urls[0], *one_by_one(first + second))
        assert glued == cut
        assert glued.count(b"HTTP/1.1 200 OK") == 2
        assert glued.index(b'"first"') < glued.index(b'"second"')

    asyncio.run(main())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", b"400"),
        (f"POST {CHAT} HTTP/1.1\r\ncontent-length: nine\r\n\r\n".encode(), b"400"),
        (f"POST {CHAT} HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".encode(), b"411"),
        (f"POST {CHAT} HTTP/1.1\r\ncontent-length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode(), b"413"),
        (b"GET /health HTTP/1.1\r\nx: " + b"y" * 70_000, b"431"),
    ],
)
def test_a_malformed_request_is_answered_and_the_connection_closed(sent: bytes, status: bytes) -> None:
    """A request that cannot be read gets its status, and then the server closes the connection."""

    async def main() -> None:
        async with Rehearsal(spec_of({"model": "m"})) as rehearsal:
            answer = await exchange(rehearsal.urls[0], sent)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in answer

    asyncio.run(main())


# Starting and stopping


def test_a_taken_port_is_named() -> None:
    """The error says which endpoint, which port, and what to do."""

    async def main() -> None:
        async with Rehearsal(spec_of({"model": "m"})) as rehearsal:
            port = int(rehearsal.urls[0].removesuffix("/v1").rsplit(":", 1)[1])
            with pytest.raises(SpecError, match=rf"^endpoints\.1\.port: cannot listen on {port}: .*; choose"):
                async with Rehearsal(spec_of({"model": "free"}, {"model": "m", "port": port})):
                    pass

    asyncio.run(main())


def test_a_missing_key_is_named_by_its_variable() -> None:
    """A spec that names a key's variable which the environment lacks does not start."""

    async def main() -> None:
        with pytest.raises(SpecError, match="REHEARSAL_KEY is not set"):
            async with Rehearsal(spec_of({"model": "m", "api_key_env": "REHEARSAL_KEY"}), environ={}):
                pass

    asyncio.run(main())


def test_a_wrong_file_is_explained_with_file_line_and_key(tmp_path: Path) -> None:
    """Nothing is served from a file with a misspelt key, or with two endpoints on one port."""
    path = tmp_path / "endpoints.yaml"
    path.write_text("endpoints:\n  - {modle: x, model: x}\n")
    with pytest.raises(SpecError, match=r"endpoints\.yaml:2: endpoints\.0\.modle: .*did you mean 'model'"):
        run_rehearsal(path)
    path.write_text("endpoints:\n- {port: 9, model: a}\n- {port: 9, model: b}\n")
    with pytest.raises(SpecError, match="two endpoints have the port 9"):
        run_rehearsal(path)


def test_a_bad_line_of_a_reply_file_is_named(tmp_path: Path) -> None:
    """A reply without a prompt stops the start, with file and line."""
    (tmp_path / "replies.jsonl").write_text('{"prompt": "a", "reply": "b"}\n{"reply": "c"}\n')
    spec = RehearsalEndpointSpec.model_validate({"model": "m", "answers": {"file": "replies.jsonl"}})
    with pytest.raises(SpecError, match=r"replies\.jsonl:2: "):
        answer_source(spec, 0, tmp_path)


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_prints_its_urls_and_ends_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """It prints one line per endpoint once they listen; SIGTERM or SIGINT ends it with 0 and nothing on stderr."""
    path = tmp_path / "endpoints.yaml"
    path.write_text("endpoints: [{model: small}, {model: large}]\n")
    code = "import sys, pathlib, jobs.rehearsal.server as r; r.run_rehearsal(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(2)]
        assert [model for model, _ in lines] == ["small", "large"]
        os.kill(process.pid, number)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
