"""A command whose rows come from a pipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def write_job(folder: Path) -> None:
    (folder / "job.yaml").write_text(
        "engine: inline\n"
        "input: {path: /dev/stdin}\n"
        "router: {kind: random}\n"
        "models:\n"
        "- {name: small, price: {input: 1, output: 1}, endpoints: [{url: 'http://127.0.0.1:9/v1'}]}\n"
        "output: {path: out.jsonl}\n"
    )


def command(folder: Path, name: str, rows: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.cli", name, str(folder / "job.yaml")],
        input=rows,
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.real
def test_an_estimate_of_piped_rows_reads_them_all(tmp_path: Path) -> None:
    """`estimate` reads the rows from the pipe, and ends with one line if there are none."""
    write_job(tmp_path)
    good = command(tmp_path, "estimate", b'{"prompt":"a"}\n{"prompt":"b"}\n')
    assert good.returncode == 0, good.stderr
    assert b"2 rows" in good.stdout
    empty = command(tmp_path, "estimate", b"")
    assert empty.returncode == 2
    assert b"/dev/stdin: nothing was piped in" in empty.stderr
