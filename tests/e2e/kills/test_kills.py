"""A run killed before chosen system calls and at random instants, and what its rows came to."""

import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from tests.e2e.kills.account import Account
from tests.e2e.kills.harness import STRACE, Boundary, Job, ending
from tests.e2e.ledger_server import Ledger, ledger_server

pytestmark = pytest.mark.real

needs_strace = pytest.mark.skipif(STRACE is None, reason="strace is not installed")

ROWS = 60

# In the order in which a run comes to them, resumed or not: what is on either side of each step being stored. How many
# lines share a write to a journal is up to the machine's speed; its header, a request and its answer are never one.
DEATHS = (
    Boundary("rename", "results.jsonl.run/.run.json.00000000.tmp", 1),
    Boundary("fsync", "results.jsonl.run/scored", 1),
    Boundary("rename", "results.jsonl.run/.plan.json.00000000.tmp", 1),
    Boundary("write", "results.jsonl.run/verdicts/.00001.json.00000000.tmp", 1),
    Boundary("write", "results.jsonl.run/journal/00000/small.jsonl", 2),
    Boundary("write", "results.jsonl.run/journal/00001/large.jsonl", 3),
    Boundary("fdatasync", "results.jsonl.run/journal/00002/large.jsonl", 1),
    Boundary("rename", "results.jsonl.run/output/.part-00002.jsonl.00000000.tmp", 1),
    Boundary("fsync", "results.jsonl.run/committed/.00002.json.00000000.tmp", 1),
    Boundary("write", ".results.errors.jsonl.00000000.tmp", 1),
    Boundary("rename", "results.jsonl.run/.report.json.00000000.tmp", 1),
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with ledger_server(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture
def new_job(tmp_path: Path, ledger: Ledger) -> Iterator[Callable[..., Job]]:
    """Makes jobs; nothing of them runs on after the test."""
    jobs: list[Job] = []

    def make(rows: int = ROWS, format: str = "openai_batch", at_once: int = 8) -> Job:  # noqa: A002
        folder = tmp_path / f"job-{len(jobs)}"
        jobs.append(Job(folder, ledger, rows, engine="inline", format=format, at_once=at_once))
        return jobs[-1]

    yield make
    for job in jobs:
        job.end()


@needs_strace
def test_a_run_killed_before_eleven_calls_ends_byte_for_byte_as_an_unbroken_one(new_job: Callable[..., Job]) -> None:
    """Killed before a rename, write or fsync of each step, a run loses, doubles and pays again nothing unsaid."""
    whole = new_job()
    assert set(DEATHS) <= set(whole.traced())
    job = new_job()
    assert job.die_at(DEATHS) == list(DEATHS)
    account = job.account(whole.results)
    assert (account.kills, account.rows, account.faults) == (len(DEATHS), ROWS, 0), account
    assert job.report()["rows"] == whole.report()["rows"]


def test_a_run_killed_at_random_instants_ends_as_an_unbroken_one(new_job: Callable[..., Job]) -> None:
    """Three thousand rows, SIGKILL at three random instants: nothing is lost, doubled or paid again unsaid."""
    whole = new_job(3000, "jsonl", 64)
    whole.finish()
    job = new_job(3000, "jsonl", 64)
    job.die_at_random(3, Random(3), 3.0)
    account = job.account(whole.results)
    assert account.faults == 0, account


def test_an_account_tells_of_every_fault(new_job: Callable[..., Job], ledger: Ledger) -> None:
    """A lost result, a doubled one, a changed byte, and a request for an answer that was stored: each is counted."""
    job = new_job()
    with ending(job):
        job.finish()
    whole = job.results
    assert job.account(whole) == Account(jobs=1, rows=ROWS)
    job.note()
    body = json.dumps({"messages": [{"role": "user", "content": "row 00000"}]}).encode()
    urllib.request.urlopen(f"{ledger.url}/chat/completions", body).read()
    results = job.folder / "results.jsonl"
    _, *rest = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join([rest[0], *rest]))
    assert job.account(whole) == Account(1, 1, ROWS, 1, 1, 1, 1, 1, 1)
