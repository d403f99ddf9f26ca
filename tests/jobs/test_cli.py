"""The command line: what each command prints, where, and the status it ends with."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jobs import __version__
from jobs.exit_status import Exit
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served

HEAVY = ("ray", "torch", "pyarrow", "litellm", "pandas", "transformers", "numpy")


def test_a_good_job_ends_with_0_and_again_with_0(command: Command, job: Job, tmp_path: Path, served: Served) -> None:
    """The valid job of these tests runs; run again, it sends nothing and reports the same rows."""
    path = written(job, tmp_path)
    first = command("run", path, "--json")
    assert (first.status, first.faults) == (Exit.OK, [])
    assert json.loads(first.out)["rows"]["ok"] == 3
    assert len(served.posts) == 3
    again = command("run", path, "--json")
    assert (again.status, len(served.posts)) == (Exit.OK, 3)
    assert json.loads(again.out)["rows"] == json.loads(first.out)["rows"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run",),
        ("run", "job.yaml", "--limit", "0"),
        ("run", "job.yaml", "--no-such-option"),
        ("no-such-command",),
        ("run", "no-such-file.yaml"),
        ("report", "no-such-folder"),
        ("status", "no-such-folder"),
        ("rehearse", "no-such-file.yaml"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_ends_with_2(arguments: tuple[str, ...], command: Command) -> None:
    """A misspelt command line or path is explained on stderr, without a traceback."""
    ended = command(*arguments)
    assert ended.status == Exit.WRONG
    assert ended.out == ""
    assert ended.err
    assert "Traceback" not in ended.err


def test_some_rows_not_ok_ends_with_1(command: Command, job: Job, tmp_path: Path) -> None:
    """A run that finished with an invalid row ends with status 1."""
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "good"}\n{"prompt": 7}\n')
    ended = command("run", written(job, tmp_path), "--json")
    assert ended.status == Exit.SOME_NOT_OK
    assert json.loads(ended.out)["rows"] | {"deduplicated": 0} == {
        "total": 2,
        "ok": 1,
        "failed": 0,
        "invalid": 1,
        "unsent": 0,
        "deduplicated": 0,
    }


def test_a_bug_ends_with_3(command: Command, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error prints its traceback and ends with 3: Python's own status 1 would promise results."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("nobody foresaw this")

    monkeypatch.setattr("jobs.commands.run.run_job", broken)
    ended = command("run", written(job, tmp_path))
    assert (ended.status, ended.out) == (Exit.STOPPED, "")
    assert ended.err.startswith("Traceback (most recent call last):\n")
    assert "RuntimeError: nobody foresaw this\n" in ended.err
    assert ended.faults == ["this is a bug of batchrouter's; rerun the same command to resume"]
    assert ended.err.splitlines()[-1].startswith("batchrouter: ")


def test_stdout_is_one_json_document(command: Command, job: Job, tmp_path: Path, served: Served) -> None:
    """run, report, status, estimate and check print one JSON document each; estimate and check send no prompt."""
    path = written(job, tmp_path)
    for looked in ("estimate", "check"):
        ended = command(looked, path, "--json")
        assert ended.status == Exit.OK, ended.err
        assert isinstance(json.loads(ended.out), dict)
    assert served.posts == []
    ran = json.loads(command("run", path, "--json").out)
    assert json.loads(command("report", tmp_path / "out" / "results.jsonl.run", "--json").out) == ran
    standing = json.loads(command("status", tmp_path / "out" / "results.jsonl.run", "--json").out)
    assert (standing["finished"], standing["statuses"]["ok"]) == (True, 3)


def test_check_finds_faults_that_would_stop_a_run(command: Command, job: Job, tmp_path: Path) -> None:
    """An output that replaces the input and an unreachable model are problems of a check, and its status is 2."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        job["models"][1]["endpoints"][0]["url"] = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
    job["output"] = {"path": "prompts.jsonl", "run_dir": "run"}
    ended = command("check", written(job, tmp_path), "--json")
    assert ended.status == Exit.WRONG
    problems = json.loads(ended.out)["problems"]
    assert any("replace the input" in problem for problem in problems)
    assert any("large" in problem for problem in problems)


def test_check_reads_the_rows_whatever_the_router(command: Command, job: Job, tmp_path: Path) -> None:
    """If the checkpoint is missing, `check` still counts the rows and finds the invalid ones."""
    job["router"] = {"kind": "knn", "checkpoint": "nobody/nothing"}
    with (tmp_path / "prompts.jsonl").open("a") as prompts:
        prompts.write('{"prompt": 5}\n')
    found = json.loads(command("check", written(job, tmp_path), "--json").out)
    assert (found["rows"], found["invalid"]) == (4, 1)
    assert [
        problem for problem in found["problems"] if "nobody/nothing: no such folder, and no such repository" in problem
    ]


def test_the_schema_describes_the_job_file(command: Command, job: Job) -> None:
    """The schema's references resolve, every top-level key is described, and the required keys are listed."""
    ended = command("schema")
    schema = json.loads(ended.out)
    assert (ended.status, schema["type"], schema["additionalProperties"]) == (Exit.OK, "object", False)
    assert set(schema["required"]) >= {"input", "models", "output"}
    assert set(job) <= set(schema["properties"])
    for spec in schema["properties"].values():
        # A key that holds a section is described where the section is.
        target = spec.get("$ref", "").removeprefix("#/$defs/")
        assert spec.get("description") or schema["$defs"][target]["description"]
    references = set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', ended.out))
    assert references <= set(schema["$defs"])


# Run in a separate process, to see what a command imports.

_SPY = """
import sys
from jobs.cli import run_command
try:
    sys.exit(run_command())
finally:
    sys.stderr.write("imported:" + ",".join(sorted(set(sys.modules) & set({heavy!r}))) + "\\n")
"""


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("run", "--help"), 0),
        (("schema",), 0),
        (("run", "wrong.yaml"), 2),
        (("run", "none.yaml"), 2),
        (("evaluate", "--help"), 0),
        (("evaluate", "wrong.yaml"), 2),
        (("train", "wrong.yaml"), 2),
    ],
    ids=str,
)
def test_help_and_refusals_import_nothing_heavy(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    """Heavy libraries would slow them down; `benchmarks/start.py` measures the seconds."""
    (tmp_path / "wrong.yaml").write_text("engin: ray\n")
    ended = subprocess.run(
        [sys.executable, "-c", _SPY.format(heavy=HEAVY), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    *said, imported = ended.stderr.splitlines()
    assert imported == "imported:"
    assert all(line.startswith("batchrouter: ") for line in said)


_ENDS = """
import atexit, sys
import {client}
from jobs.cli import main
atexit.register(print, "torn down", file=sys.stderr)
sys.argv = ["batchrouter", "schema"]
main()
"""


@pytest.mark.parametrize(("client", "torn_down"), [("pyreqwest", False), ("json", True)])
def test_a_process_with_the_http_client_ends_before_python_is_torn_down(client: str, torn_down: bool) -> None:
    """The client's threads would abort Python's teardown, so it is skipped; output and status are complete."""
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS.format(client=client)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["title"] == "JobSpec"
    assert ("torn down" in ended.stderr) is torn_down


def test_the_version_is_that_of_the_package(command: Command) -> None:
    """`--version` prints what pyproject.toml says, and so do the package and the documentation."""
    root = Path(__file__).parents[2]
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    assert command("--version").out == f"batchrouter {version}\n"
    assert __version__ == version
    assert f"prints `batchrouter {version}`" in (root / "docs" / "command-line.md").read_text()
