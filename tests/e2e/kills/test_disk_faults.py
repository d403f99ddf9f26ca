"""A disk that is full, or fails, at each kind of write that a run makes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kills.harness import STOPPED, STRACE, Boundary, Fault, Job, complaint, ending
from tests.e2e.ledger_server import Ledger, ledger_server

pytestmark = pytest.mark.real

ROWS = 60
RUN = "results.jsonl.run"

# In the order in which a run comes to them, resumed or not.
FAULTS = (
    Fault("ENOSPC", Boundary("pwrite64", f"{RUN}/run.lock", 1)),
    Fault("ENOSPC", Boundary("write", f"{RUN}/.run.json.00000000.tmp", 1)),
    Fault("EIO", Boundary("fsync", f"{RUN}/scored/.00001.parquet.00000000.tmp", 1)),
    Fault("ENOSPC", Boundary("write", f"{RUN}/routed/small/.00000.parquet.00000000.tmp", 1)),
    Fault("EIO", Boundary("openat", f"{RUN}/verdicts/00000.json", 1)),
    Fault("ENOSPC", Boundary("write", f"{RUN}/journal/00000/small.jsonl", 3)),
    Fault("EIO", Boundary("fdatasync", f"{RUN}/journal/00001/large.jsonl", 1)),
    Fault("EIO", Boundary("rename", f"{RUN}/output/.part-00001.jsonl.00000000.tmp", 1)),
    Fault("ENOSPC", Boundary("write", ".results.jsonl.00000000.tmp", 1)),
)

# So many bytes fit in a file, the next write takes what fits: the run gets further each time.
SIZES = (2_000, 5_000, 8_000, 12_000)

_LIMITED = (
    "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)\n"
    "from jobs.cli import main\n"
    "main()"
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with ledger_server(tmp_path_factory.mktemp("ledger")) as running:
        yield running


@pytest.fixture(scope="module")
def unbroken(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run whose disk is well."""
    with ending(_job(tmp_path_factory.mktemp("unbroken"), ledger)) as job:
        job.finish()
        return job.results


def _job(folder: Path, ledger: Ledger) -> Job:
    return Job(folder, ledger, ROWS, engine="inline", format="openai_batch", at_once=8)


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_a_failing_disk_stops_a_run_which_the_same_command_ends(
    tmp_path: Path, ledger: Ledger, unbroken: dict[str, bytes]
) -> None:
    """Whatever write fails: status 3 and one line that names the file; the command goes on and pays nothing again."""
    with ending(_job(tmp_path, ledger)) as job:
        assert job.fail_at(FAULTS) == list(FAULTS)
        assert job.stopped_badly == []
        assert job.account(unbroken).faults == 0, job.account(unbroken)


def test_a_disk_that_takes_half_a_line_stops_a_run_which_the_same_command_ends(
    tmp_path: Path, ledger: Ledger, unbroken: dict[str, bytes]
) -> None:
    """Writes that end in the middle stop the run with status 3 and one line; it goes on once there is room."""
    with ending(_job(tmp_path, ledger)) as job:
        for size in SIZES:
            command = job.start(program=(sys.executable, "-c", _LIMITED, str(size)))
            assert command.wait() == STOPPED, command.stderr
            (line,) = complaint(command.stderr)
            assert str(job.folder) in line
            assert "rerun the same command to resume" in line
            job.note()
        job.finish()
        assert job.account(unbroken).faults == 0, job.account(unbroken)
