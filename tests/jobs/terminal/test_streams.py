"""Standard streams that are closed, full or read by nobody: what is done is done all the same."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.environment import interrupts
from jobs.exit_status import Exit
from tests.jobs.console_script import Job, written

ROOT = Path(__file__).parents[3]
BATCHROUTER = (sys.executable, "-m", "jobs.cli")
STANDARD = (0, 1, 2)

pytestmark = pytest.mark.real


def _without_streams() -> None:
    for number in STANDARD:
        os.close(number)


def _read_by_nobody() -> None:
    for number in (1, 2):
        reading, writing = os.pipe()
        os.dup2(writing, number)
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("before", [_without_streams, _read_by_nobody])
@pytest.mark.parametrize("more", [(), ("--json",)], ids=["table", "json"])
def test_a_run_that_nobody_listens_to_ends_well(
    before: Callable[[], None], more: tuple[str, ...], job: Job, tmp_path: Path
) -> None:
    """Started without its streams, or into pipes that nobody reads, it answers every row and ends with 0."""
    ended = subprocess.run(
        [*BATCHROUTER, "run", str(written(job, tmp_path)), *more],
        cwd=ROOT,
        preexec_fn=before,
        timeout=60,
        check=False,
    )
    assert ended.returncode == Exit.OK
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["ok"] * 3


def test_what_could_not_be_printed_is_said() -> None:
    """Where standard output is a file on a full disk, the status is not 0 and standard error says why."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*BATCHROUTER, "schema"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == Exit.STOPPED
    assert ended.stderr == (
        "batchrouter: standard output cannot be written: No space left on device; "
        "rerun the same command to print it again\n"
    )


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["table", "json"])
def test_what_an_encoding_lacks_is_escaped(more: tuple[str, ...], job: Job, tmp_path: Path) -> None:
    """Where standard output takes ASCII only, a name that is not in it is escaped, and JSON is JSON all the same."""
    job["name"] = "Größe 🤖"
    ended = subprocess.run(
        [*BATCHROUTER, "run", str(written(job, tmp_path)), *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == Exit.OK, ended.stderr
    if more:
        assert json.loads(ended.stdout)["name"] == job["name"]
    else:
        assert r"Gr\u00f6\u00dfe \ud83e\udd16" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_once(number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a terminal that is closed ask for a good end; who asks twice does not wait for it."""
    asked: list[str] = []
    # Under nohup the tests would not hear the end of the terminal.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with interrupts(lambda: asked.append("drain")):
            signal.raise_signal(number)
            assert asked == ["drain"]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(number)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


def test_under_nohup_a_closed_terminal_is_nothing() -> None:
    """Who ignores SIGHUP wants the run to go on."""
    asked: list[str] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(lambda: asked.append("drain")):
            signal.raise_signal(signal.SIGHUP)
        assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)
