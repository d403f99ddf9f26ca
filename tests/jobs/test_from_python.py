"""Calls from Python behave as `docs/command-line.md` documents."""

from pathlib import Path

import pytest

from batch.errors import BatchRouterError, EmbedderError, SpecError, StorageError
from jobs import estimate, run
from jobs.files.yaml_specs import load_job
from jobs.stopped import StoppedError
from tests.jobs.console_script import Job, written
from tests.rehearsed import Served


def test_a_path_and_a_job_give_the_same_reports(job: Job, tmp_path: Path, served: Served) -> None:
    """`estimate` sends nothing; `run` takes settings as `--set` does; a path and a loaded job give equal results."""
    path = written(job, tmp_path)
    expected = estimate(path).cost_usd
    assert expected.low <= expected.expected <= expected.high
    assert served.posts == []

    report = run(str(path), settings=["plan.strong=1"])
    assert (report.rows.ok, report.cost_is_complete) == (3, True)
    assert report.cost_usd > 0
    assert {name: model.rows for name, model in report.models.items()} == {"small": 0, "large": 3}
    assert run(load_job(path, ["plan.strong=1"])).rows == report.rows
    assert len(served.posts) == 3, "a finished job sends nothing, however it is named"


def test_a_stopped_run_is_finished_from_python_too(job: Job, tmp_path: Path) -> None:
    """`finish=True` works as `--finish` does: it needs a run directory, and writes the results that exist."""
    path = written(job, tmp_path)
    with pytest.raises(SpecError, match="there is none at"):
        run(path, finish=True)
    run(path)
    assert run(path, finish=True).rows.ok == 3


def test_faults_are_raised_and_not_printed(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fault of the job is a SpecError with file and line, and so is a job file that is not there."""
    job["plan"] = {"strategy": "share", "strong": 2}
    with pytest.raises(SpecError, match=r"job\.yaml:\d+: plan"):
        run(written(job, tmp_path))
    with pytest.raises(SpecError, match="no-such"):
        estimate(tmp_path / "no-such.yaml")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [SpecError, StorageError, StoppedError, EmbedderError])
def test_exceptions_have_one_base(error: type[Exception]) -> None:
    """Catching `BatchRouterError` catches everything that ends a command with a status of its own."""
    assert issubclass(error, BatchRouterError)
