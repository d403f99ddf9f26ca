"""The dispatcher sends no more requests at once than the open-file limit of this process has room for."""

import asyncio
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from batch.dispatch.dispatcher import DispatchEnd
from batch.dispatch.limits.open_files import connections, note
from batch.dispatch.request import Completion, Request
from batch.dispatch.transports.access import resolve
from batch.dispatch.transports.client import not_connected
from batch.dispatch.transports.registry import build_transport
from batch.errors import NoFileLeft, NotConnected
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.dispatch.transports.exchanges import no_keys
from tests.dispatch.transports.raw_server import http, raw_server, says
from tests.fakes import answer, request
from tests.rehearsed import serve
from tests.virtual_time import run

ROWS = 400
FEW_FILES = 128


def endpoints(count: int, max_in_flight: int | None = None) -> ModelSpec:
    limits = LimitsSpec(max_in_flight=max_in_flight)
    return ModelSpec(
        name="m",
        endpoints=tuple(EndpointSpec(url=f"http://m{i}/v1", model="m", limits=limits) for i in range(count)),
    )


def most_at_once(model: ModelSpec, allowed: int | None) -> int:
    """Dispatch all rows, check that each was answered, and return the most requests that were in flight at once."""
    under_way = most = 0

    async def slow(asked: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(1.0)
        under_way -= 1
        return answer()

    work = MemoryWork({(0, "m"): list(range(ROWS))})

    async def main() -> DispatchEnd:
        dispatcher = built(work, slow, [model], connections=allowed)
        dispatcher.feed(0)
        dispatcher.close_feed()
        return await dispatcher.run()

    run(main())
    assert {outcome.status for outcome in work.outcomes.values()} == {"ok"}
    assert len(work.outcomes) == ROWS
    return most


@pytest.mark.parametrize("max_in_flight", [None, 300])
def test_no_endpoint_gets_more_requests_than_there_are_connections(max_in_flight: int | None) -> None:
    """The bound on connections holds if an endpoint has no limit or a higher one; without it, more are in flight."""
    assert most_at_once(endpoints(2, max_in_flight), 8) <= 16
    assert most_at_once(endpoints(2, max_in_flight), None) > 16


def test_a_lower_limit_of_the_endpoint_s_own_holds() -> None:
    """The bound on connections does not raise an endpoint's own limit of three requests in flight."""
    assert most_at_once(endpoints(1, 3), 20) == 3


def test_endpoints_share_what_is_left_of_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connections of all endpoints stay below the file limit, and each endpoint has at least one.

    If the process has no file limit, there is no bound.
    """
    monkeypatch.setattr(resource, "getrlimit", lambda which: (FEW_FILES, FEW_FILES))
    one, four = connections(1), connections(4)
    assert one is not None
    assert four is not None
    assert 4 * four <= one < FEW_FILES
    assert connections(10_000) == 1
    assert "128 files" in note(four)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connections(1) is None


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    """`raise_limit` raises a soft limit of 256 to the hard limit of 1,000, and a second call changes nothing."""
    program = (
        "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (256, 1000));"
        "from batch.dispatch.limits.open_files import raise_limit; raise_limit(); raise_limit();"
        "print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "(1000, 1000)"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_want_of_files_is_ours_and_not_the_endpoint_s(number: int) -> None:
    """An error whose text names a lack of files or memory is this process's; a refused connection is the endpoint's."""
    access = resolve(EndpointSpec(url="http://m/v1", model="m"), no_keys)
    ours = not_connected(f"tcp open error: {os.strerror(number)} (os error {number})", access)
    assert isinstance(ours, NoFileLeft)
    assert (ours.blame, ours.reached, ours.kind) == ("throttle", False, "not_connected")
    theirs = not_connected(os.strerror(errno.ECONNREFUSED), access)
    assert not isinstance(theirs, NoFileLeft)
    assert (type(theirs), theirs.blame) == (NotConnected, "endpoint")


@contextmanager
def no_files_left() -> Iterator[None]:
    """Leave this process unable to open any file inside the `with` block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as taken:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, hard))
        taken.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                taken.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        yield


def test_a_connection_that_this_process_cannot_open_is_told_from_one_that_is_refused() -> None:
    """With no descriptor left the real client raises `NoFileLeft`; once there are some again, it gets an answer."""

    async def main() -> None:
        async with raw_server(says(http(200, b'{"choices":[{"message":{"content":"ok"}}]}'))) as server:
            spec = EndpointSpec(url=server.url, model="m")
            sender = build_transport(spec, timeout_seconds=5.0, keys=no_keys, wall=lambda: 0.0)
            with no_files_left(), pytest.raises(NoFileLeft):
                await sender.send(request())
            await sender.send(request())
            await sender.aclose()

    asyncio.run(main())


def test_rows_wait_for_a_file_and_the_endpoint_is_not_blamed() -> None:
    """An attempt that finds no free file is not counted; the endpoint is charged with no error and stays in use."""
    tried = 0

    async def short(asked: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal tried
        tried += 1
        if tried % 3:
            raise NoFileLeft("no connection: this process can open no more")
        await asyncio.sleep(0.1)
        return answer()

    work = MemoryWork({(0, "m"): list(range(60))})

    async def main() -> None:
        dispatcher = built(work, short, [endpoints(1)])
        dispatcher.feed(0)
        dispatcher.close_feed()
        end = await dispatcher.run()
        assert end.stalled == ()
        (endpoint,) = dispatcher.lanes["m"].pool.endpoints
        assert not endpoint.out
        assert endpoint.errors == 0

    run(main())
    assert {(outcome.status, outcome.attempts) for outcome in work.outcomes.values()} == {("ok", 1)}


@pytest.mark.real
def test_a_run_with_few_files_asks_an_unlimited_endpoint_to_the_end(tmp_path: Path) -> None:
    """With a hard limit of 128 open files every row is ok at its first attempt, and the report names the limit."""
    lines = [json.dumps({"id": f"r{row}", "prompt": f"row {row}"}) for row in range(ROWS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    with serve({"model": "m", "answers": "echo", "latency": {"median_seconds": 0.2}}) as served:
        job = {
            "engine": "inline",
            "input": {"path": "prompts.jsonl"},
            "router": {"kind": "constant"},
            "models": [{"name": "m", "endpoints": [{"url": served.urls[0], "limits": {"max_in_flight": 300}}]}],
            "plan": {"strategy": "pin", "model": "m"},
            "output": {"path": "results.jsonl"},
        }
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        few = f"ulimit -n {FEW_FILES} && exec {sys.executable} -m jobs.cli run {tmp_path / 'job.yaml'} --json"
        ran = subprocess.run(["/bin/sh", "-c", few], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert f"may open {FEW_FILES} files" in ran.stdout
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert len(results) == ROWS
    assert {(row["status"], row["attempts"]) for row in results} == {("ok", 1)}
