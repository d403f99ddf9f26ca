"""Fixtures: the command line, a job, and endpoints for it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import cli
from tests.jobs.console_script import Command, Ended, Job
from tests.rehearsed import Served, serve


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """One endpoint for each of two models."""
    with serve({"model": "small"}, {"model": "large"}) as endpoints:
        yield endpoints


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The console script, called in this process."""

    def called(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["batchrouter", *map(str, arguments)])
        status = cli.run_command()
        said = capsys.readouterr()
        return Ended(status, said.out, said.err)

    return called


@pytest.fixture
def job(served: Served, tmp_path: Path) -> Job:
    """A job that runs well, with its three prompts written."""
    served.forget()
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "p{i}"}}\n' for i in range(3)))
    return {
        "engine": "inline",
        "input": {"path": "prompts.jsonl"},
        "router": {"kind": "random"},
        "models": [
            {"name": name, "price": {"input": 1, "output": 2}, "endpoints": [{"url": url}]}
            for name, url in zip(("small", "large"), served.urls, strict=True)
        ],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "out/results.jsonl"},
    }
