"""Standard streams that are closed, full or have no reader: a failing stdout or stderr must not stop a run."""

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
def test_a_run_without_readers_of_its_output_ends_well(
    before: Callable[[], None], more: tuple[str, ...], job: Job, tmp_path: Path
) -> None:
    """Without standard streams, or with pipes that have no reader, a run answers every row and ends with 0."""
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


def test_a_failed_print_is_reported() -> None:
    """If standard output is on a full disk, the status is not 0 and standard error has the reason."""
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
def test_characters_outside_the_encoding_are_escaped(more: tuple[str, ...], job: Job, tmp_path: Path) -> None:
    """If standard output is ASCII only, other characters are escaped, and JSON stays valid."""
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
    """The first Ctrl-C, SIGTERM or SIGHUP asks the run to drain; the second interrupts it at once."""
    asked: list[str] = []
    # Under nohup SIGHUP is ignored, so the test sets a handler first.
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


def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    """If SIGHUP is ignored, as under nohup, the run continues."""
    asked: list[str] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts(lambda: asked.append("drain")):
            signal.raise_signal(signal.SIGHUP)
        assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)
