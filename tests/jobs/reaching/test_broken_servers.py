"""Whatever a server answers, `check` ends soon, with one line about it."""

import asyncio
import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.commands import reachability
from jobs.commands.reachability import models_listed, unreachable
from schemas.endpoints import EndpointSpec, ModelSpec
from tests.jobs.console_script import Command, Job, written

# The time limit of these tests, instead of ten seconds.
SECONDS = 1.0

Send = Callable[[bytes], None]


def http(body: bytes, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def dribbles(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        send(b" ")
        time.sleep(0.05)


def dribbles_headers(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n")
    while True:
        send(b"x-a: b\r\n")
        time.sleep(0.05)


def continues(send: Send) -> None:
    while True:
        send(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


def processes(send: Send) -> None:
    while True:
        send(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.01)


def never_ends(send: Send) -> None:
    send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        send(b" " * 65536)


def hangs(send: Send) -> None:
    time.sleep(SECONDS * 3)


BROKEN: dict[str, tuple[bytes | Callable[[Send], None], bool, str]] = {
    "no status line": (b"garbage\r\n\r\n", False, "no HTTP answer"),
    "a status that is no number": (b"HTTP/1.1 abc OK\r\n\r\n", False, "no HTTP answer"),
    "nothing": (b"", False, "no HTTP answer"),
    "a body that breaks off": (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", False, "no HTTP answer"),
    "chunks that are none": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", False, "no HTTP answer"),
    "gzip that is none": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        False,
        "no HTTP answer",
    ),
    "a length that is no number": (b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}", False, "no HTTP answer"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", False, "no HTTP answer"),
    "a byte now and then": (dribbles, False, "within"),
    "headers without end": (dribbles_headers, False, "no HTTP answer"),
    "100 Continue for ever": (continues, False, "no HTTP answer"),
    "102 Processing for ever": (processes, False, "no HTTP answer"),
    "silence": (hangs, False, "within"),
    "a body without end": (never_ends, True, "longer than 4 MiB"),
    "deep JSON": (http(b"[" * 100_000), True, "cannot be read"),
    "an id that is a number": (http(b'{"data": [{"id": 5}]}'), True, "lists nothing and not m"),
    "a list of null": (http(b'{"data": [null]}'), True, "cannot be read"),
    "data that is a number": (http(b'{"data": 5}'), True, "cannot be read"),
    "JSON of one word": (http(b"true"), True, "cannot be read"),
    "no UTF-8": (http(b'{"data": [{"id": "\xff"}]}'), True, "cannot be read"),
    "a redirect": (http(b"", "301 Moved\r\nlocation: http://127.0.0.1:9/"), True, "redirects are not followed"),
    "a status of its own": (http(b"", "999 Own"), True, "no list of models (HTTP 999"),
    "a key that it does not know": (http(b'{"error": {"message": "who are you?"}}', "401 No"), False, "who are you?"),
}


@contextmanager
def broken(answer: bytes | Callable[[Send], None]) -> Iterator[str]:
    """A server that gives this answer; it stops when the client disconnects."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            try:
                self.request.recv(65536)
                if isinstance(answer, bytes):
                    self.request.sendall(answer)
                else:
                    answer(self.request.sendall)
            except OSError:
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_server_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` soon has one line about the server, whatever it sends; the check before a run only needs a connection."""
    monkeypatch.setattr(reachability, "_ANSWER_SECONDS", SECONDS)
    answer, usable, said = BROKEN[name]
    with broken(answer) as url:
        endpoint = EndpointSpec(url=url, model="m")
        started = time.monotonic()
        (found,) = models_listed([endpoint])
        assert time.monotonic() - started < SECONDS + 5
        assert (found[0], said in found[1]) == (usable, True), found
        assert "\n" not in found[1]
        assert unreachable([ModelSpec(name="m", endpoints=(endpoint,))]) == {}


def test_check_reports_broken_servers(job: Job, command: Command, tmp_path: Path) -> None:
    """`check` ends without a traceback and with its findings, also inside a running event loop."""
    with broken(BROKEN["an id that is a number"][0]) as odd, broken(b"garbage\r\n\r\n") as garbage:
        job["models"][0]["endpoints"] = [{"url": odd}, {"url": garbage}]
        ended = command("check", written(job, tmp_path), "--json")
    found = json.loads(ended.out)["endpoints"]
    assert [entry["usable"] for entry in found][:2] == [True, False]
    assert "Traceback" not in ended.err

    async def inside() -> list[tuple[bool, str]]:
        return models_listed([EndpointSpec(url="http://127.0.0.1:9/v1", model="m")])

    ((usable, said),) = asyncio.run(inside())
    assert (usable, "no connection" in said) == (False, True)


def test_check_sends_what_a_run_sends(
    job: Job, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` sends the key, headers and query of the job, through the proxy of the environment, as a run does."""
    heads: list[bytes] = []

    class Proxy(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heads.append(self.request.recv(65536))
            self.request.sendall(http(b'{"data": [{"id": "small"}]}'))

    monkeypatch.setenv("THE_KEY", "key-0123456789-abcdef")
    monkeypatch.setenv("TEAM", "research")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        proxy = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HTTP_PROXY", proxy)
        job["models"][0]["endpoints"] = [
            {
                "url": "http://llm.invalid/v1?a=1",
                "api_key_env": "THE_KEY",
                "headers": {"x-team": "${TEAM}"},
                "query": {"b": "2"},
            }
        ]
        ended = command("check", written(job, tmp_path), "--json")
        server.shutdown()
        thread.join()
    found = json.loads(ended.out)["endpoints"][0]
    assert (found["usable"], found["said"]) == (True, f"serves small (through the proxy {proxy})")
    head = heads[0].decode().lower()
    assert head.startswith("get http://llm.invalid/v1/models?a=1&b=2 http/1.1\r\n")
    assert "authorization: bearer key-0123456789-abcdef\r\n" in head
    assert "x-team: research\r\n" in head


def test_an_azure_deployment_without_a_version_is_a_warning(job: Job, command: Command, tmp_path: Path) -> None:
    """Azure answers such a request with 404, but a gateway may add the version, so `check` only warns."""
    azure = {"url": "http://127.0.0.1:9/openai/deployments/d", "provider": "azure"}
    job["models"][0]["endpoints"] = [azure, {**azure, "api_version": "2024-06-01"}]
    ended = command("check", written(job, tmp_path), "--json")
    warnings = [line for line in json.loads(ended.out)["warnings"] if "api_version" in line]
    assert warnings == [f"model small: Azure's deployments want an api_version: give one to {azure['url']}"]
