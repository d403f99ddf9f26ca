"""Where `--verbose` and `--log-file` send log records, and what no record contains."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from batch.dispatch.snapshot import ProgressSnapshot
from batch.errors import SpecError
from jobs.exit_status import Exit
from jobs.logs import log_records
from jobs.terminal.progress import ProgressDisplay
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) batchrouter(\.\w+)+: .+")
KEY = "key-0123456789abcdef"
PROMPT = "What does the ledger of the lighthouse keeper say?"

logger = logging.getLogger("batchrouter.dispatch.health")


@pytest.fixture
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` logs one record of each level before it starts."""
    from jobs.commands import run

    original = run.run_job

    def logging_run(*arguments: Any, **options: Any) -> Any:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logger.log(level, "endpoint %s, level %d", "http://here/v1", level)
        return original(*arguments, **options)

    monkeypatch.setattr(run, "run_job", logging_run)


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Check that a command leaves Python's logging as it was, except for a handler that discards."""
    root = logging.getLogger("batchrouter")
    yield
    assert (root.level, root.propagate) == (logging.NOTSET, True)
    assert all(isinstance(handler, logging.NullHandler) for handler in root.handlers)


@pytest.mark.usefixtures("talkative")
def test_by_default_no_record_is_printed(command: Command, job: Job, tmp_path: Path) -> None:
    """Not even a warning is printed, which Python does for loggers without a handler."""
    ended = command("run", written(job, tmp_path), "--json")
    assert ended.status == Exit.OK
    assert "level" not in ended.err


@pytest.mark.usefixtures("talkative")
def test_verbose_prints_records_from_info_on(command: Command, job: Job, tmp_path: Path) -> None:
    """The records are on standard error, between the progress lines; standard output stays one JSON document."""
    ended = command("run", written(job, tmp_path), "--json", "--verbose")
    assert json.loads(ended.out)["rows"]["ok"] == 3
    records = [line for line in ended.err.splitlines() if LINE.fullmatch(line)]
    assert [line.partition(" ")[2] for line in records if "http://here" in line] == [
        "INFO batchrouter.dispatch.health: endpoint http://here/v1, level 20",
        "WARNING batchrouter.dispatch.health: endpoint http://here/v1, level 30",
    ]
    assert records[0].endswith("batchrouter 0.1.0 starts")
    assert records[-1].endswith("ends with status 0")


@pytest.mark.usefixtures("talkative")
def test_a_log_file_is_appended_to(command: Command, job: Job, tmp_path: Path) -> None:
    """The file keeps earlier lines and gets every record from DEBUG on, one line each with the time in UTC."""
    path, log = written(job, tmp_path), tmp_path / "run.log"
    log.write_text("an earlier line\n")
    for _ in range(2):
        ended = command("run", path, "--log-file", log, "--json")
        assert (ended.status, "level" in ended.err) == (Exit.OK, False)
    first, *lines = log.read_text().splitlines()
    assert first == "an earlier line"
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert sum("DEBUG batchrouter.dispatch.health" in line for line in lines) == 2


def test_every_command_has_both_options() -> None:
    from typer.main import get_command

    from jobs.cli import app

    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    assert len(commands) >= 10
    for command in commands.values():
        assert {"verbose", "log_file"} <= {parameter.name for parameter in command.params}, command.name


@pytest.mark.parametrize("place", ["no-such-folder/run.log", "."])
def test_a_log_file_that_cannot_be_written_stops_the_command_before_anything_is_sent(
    place: str, command: Command, job: Job, tmp_path: Path, served: Served
) -> None:
    """The command ends with status 2 and one line, and makes no output."""
    log = tmp_path / place
    ended = command("run", written(job, tmp_path), "--log-file", log)
    assert (ended.status, ended.out, served.posts) == (Exit.WRONG, "", [])
    (fault,) = ended.faults
    assert re.fullmatch(rf"--log-file {log}: cannot be written: .+; give another path", fault)
    assert not (tmp_path / "out").exists()


def test_a_log_file_on_a_full_disk_is_reported_once(capsys: pytest.CaptureFixture[str]) -> None:
    """After the first failed write, one line reports it, and the command continues without the log file."""
    with log_records("0.1.0", verbose=False, log_file=Path("/dev/full")):
        for _ in range(3):
            logger.info("one more line")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "batchrouter: --log-file /dev/full: cannot be written any more: No space left on device; "
        "the command goes on without it"
    )


def test_an_error_ends_the_log_file(command: Command, tmp_path: Path) -> None:
    """The error is the last line of the file, and is on standard error only once."""
    log = tmp_path / "run.log"
    ended = command("run", tmp_path / "none.yaml", "--log-file", log, "--verbose")
    assert ended.status == Exit.WRONG
    (fault,) = ended.faults
    assert ended.err.count(fault) == 1
    assert log.read_text().splitlines()[-1].endswith(f"ERROR batchrouter.jobs: {fault}")


def test_a_bug_is_named_in_the_log_file_without_its_message(
    command: Command, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unexpected exception may quote a prompt, so only its class is logged, by `logging.exception` too."""

    def broken(*_: object, **__: object) -> None:
        try:
            int(PROMPT)
        except ValueError:
            logger.exception("something broke")
            raise

    monkeypatch.setattr("jobs.commands.run.run_job", broken)
    log = tmp_path / "run.log"
    ended = command("run", written(job, tmp_path), "--log-file", log)
    assert (ended.status, PROMPT in ended.err) == (Exit.STOPPED, True)
    text = log.read_text()
    assert "something broke" in text
    assert "ValueError, a bug; its trace is on standard error" in text
    assert PROMPT not in text


def test_messages_cannot_forge_lines_or_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and escape sequences in a server's message are escaped, so that a record stays one line."""
    log = tmp_path / "run.log"
    with log_records("0.1.0", verbose=True, log_file=log):
        logger.info(
            "refused: %s", "\x1b]0;title\x07 no\n2026-01-01T00:00:00.000Z INFO batchrouter.x: \u202eforged\udc80"
        )
    for text in (log.read_text(), capsys.readouterr().err):
        lines = [line for line in text.splitlines() if "refused" in line]
        assert len(lines) == 1
        assert r"\u001b]0;title\u0007 no\n2026-01-01T00:00:00.000Z INFO batchrouter.x: \u202eforged\udc80" in lines[0]
        assert len(text.splitlines()) == 3


def test_records_are_printed_above_the_live_display() -> None:
    """On a terminal each record is a line of its own, and the display is redrawn below it."""
    terminal = StringIO()
    console = Console(file=terminal, force_terminal=True, width=120)
    with ProgressDisplay(console) as progress, log_records("0.1.0", verbose=True, log_file=None):
        progress.update(ProgressSnapshot("reading", 2, 5, (), totals_final=False))
        logger.info("the endpoint is cooling down")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue()).replace("\r", "\n").splitlines()
    assert sum(LINE.fullmatch(line.strip()) is not None for line in lines) == 3


def test_the_callers_own_handlers_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """In calls from Python, records go where the caller's logging sends them."""
    with caplog.at_level(logging.INFO, "batchrouter"), log_records("0.1.0", verbose=False, log_file=None):
        logger.info("seen by the caller")
    assert caplog.messages == ["seen by the caller"]


def test_no_key_and_no_prompt_reaches_a_log_file(
    command: Command, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a rehearsal with keys set and invalid rows, neither log file nor terminal has a key or a prompt."""
    monkeypatch.setenv("THE_KEY", KEY)
    rows = [PROMPT, 7, PROMPT * 2, ""]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    for model in job["models"]:
        model["endpoints"][0] |= {"api_key_env": "THE_KEY", "limits": {"rpm": 600, "tpm": 1000}}
    log = tmp_path / "run.log"
    ended = command("run", written(job, tmp_path), "--rehearse", "--verbose", "--log-file", log)
    assert ended.status == Exit.SOME_NOT_OK, ended.err
    text = log.read_text()
    assert text.count("\n") >= 2
    for secret in (KEY, KEY[4:], PROMPT, PROMPT[:20]):
        assert secret not in text
        assert secret not in ended.err


def test_help_does_not_import_logging() -> None:
    """Importing the command line does not import logging, so that `--help` starts fast."""
    code = "import sys, jobs.cli; print('logging' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "False\n"


def test_a_file_that_cannot_be_opened_raises_a_spec_error(tmp_path: Path) -> None:
    """The error is a SpecError, like other faults found before a command begins."""
    with pytest.raises(SpecError, match="Is a directory"), log_records("0.1.0", verbose=False, log_file=tmp_path):
        pytest.fail("the block must not run")
