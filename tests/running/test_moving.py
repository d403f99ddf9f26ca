"""Run directories that move or are copied, and input that changes under a run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, move, rmtree

import pytest

from batch.errors import FingerprintError
from batch.running.engine import InlineEngine
from batch.running.stages import ReadTask, ScoredShard, ScoreTask
from batch.runs.layout import Layout
from batch.runs.manifest import read_manifest
from jobs.commands.run import run_job
from jobs.environment import pause
from jobs.files.yaml_specs import load_job
from jobs.stopped import StoppedError
from schemas.job import JobSpec
from tests.job_folder import JobFolder, interrupt_after
from tests.rehearsed import Served, serve
from tests.running.test_resuming import SLOW, narrow

ROWS = 40


def project(folder: Path, served: Served) -> Path:
    """Make a project folder: the job file beside its data, with relative paths only. Returns the job file."""
    folder.mkdir()
    there = JobFolder(folder, served)
    there.write_prompts(ROWS)
    (folder / "more.csv").write_text("id,prompt\nc1,from a spooled file\n")
    job = {
        "engine": "inline",
        "input": {"path": ["prompts.jsonl", "more.csv"]},
        "router": {"kind": "length"},
        "models": narrow(there),
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "out/results.jsonl"},
    }
    (folder / "job.yaml").write_text(json.dumps(job))
    return folder / "job.yaml"


def stopped(path: Path) -> JobSpec:
    """Run a job file and interrupt it in the middle."""
    job = load_job(path)
    with pytest.raises(StoppedError):
        run_job(job, progress=interrupt_after(8))
    return job


def test_a_moved_project_can_be_resumed(tmp_path: Path) -> None:
    """Job, input, spool and run directory move together: answers are kept, and the other rows are sent once."""
    with serve(*SLOW) as served:
        stopped(project(tmp_path / "before", served))
        before = served.prompts()
        manifest = (tmp_path / "before" / "out" / "results.jsonl.run" / "run.json").read_text()
        assert str(tmp_path) not in manifest
        move(tmp_path / "before", tmp_path / "after")
        report = run_job(load_job(tmp_path / "after" / "job.yaml"))
        assert report.rows.ok == ROWS + 1
        assert 0 < sum(before.values()) < ROWS
        assert set(served.prompts().values()) == {1}
        assert not (tmp_path / "before").exists()


def test_a_copy_reads_and_writes_nothing_of_the_original(tmp_path: Path) -> None:
    """The copy is resumed although the original's input is overwritten; the original's folder does not change."""
    with serve(*SLOW) as served:
        stopped(project(tmp_path / "original", served))
        copytree(tmp_path / "original", tmp_path / "copy")
        for name in ("prompts.jsonl", "more.csv"):
            (tmp_path / "original" / name).write_text("spoiled")
        rmtree(tmp_path / "original" / "out" / "results.jsonl.run" / "spool")
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "original").rglob("*")}
        report = run_job(load_job(tmp_path / "copy" / "job.yaml"))
        assert report.rows.ok == ROWS + 1
        assert Path(report.output) == tmp_path / "copy" / "out" / "results.jsonl"
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "original").rglob("*")} == before


def test_a_moved_run_directory_is_resumed_with_absolute_paths(tmp_path: Path) -> None:
    """A run directory that moved alone is resumed where the job names it; the input is read where it was."""
    with serve(*SLOW) as served:
        path = project(tmp_path / "data", served)
        job = stopped(path)
        move(tmp_path / "data" / "out" / "results.jsonl.run", tmp_path / "elsewhere")
        output = job.output.model_copy(update={"run_dir": str(tmp_path / "elsewhere")})
        report = run_job(job.model_copy(update={"output": output}))
        assert report.rows.ok == ROWS + 1
        assert set(served.prompts().values()) == {1}


def before_second_shard(monkeypatch: pytest.MonkeyPatch, answered: Callable[[], bool], act: Callable[[], None]) -> None:
    """Call `act` once, after rows of the first shard were answered and before the second shard is read."""
    score = InlineEngine._score
    waiting = [act]

    def late(self: InlineEngine, reading: ReadTask, scoring: ScoreTask) -> ScoredShard:
        if reading.shard.index == 1 and waiting:
            for _ in range(1000):
                if answered():
                    break
                pause(0.01)
            waiting.pop()()
        return score(self, reading, scoring)

    monkeypatch.setattr(InlineEngine, "_score", late)


@pytest.mark.parametrize("change", ["edited", "removed", "edited in place"])
def test_input_that_changes_under_a_run_keeps_paid_answers(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run stops with one line; once the input is put back, the run is resumed and no row is paid for twice."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(30)
        second = [{"id": f"z{i}", "prompt": f"z{i}"} for i in range(5)]
        there.write(second, "second.jsonl")
        path = tmp_path / "second.jsonl"
        before, content = path.stat(), path.read_bytes()

        def harm() -> None:
            if change == "removed":
                path.unlink()
                return
            path.write_bytes(content.replace(b"z3", b"y3"))
            if change == "edited in place":
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        paths = [str(tmp_path / "prompts.jsonl"), str(path)]
        plan = {"strategy": "cutoff", "cutoff": 0.5}
        job = there.job(models=narrow(there), input={"path": paths}, plan=plan)
        before_second_shard(monkeypatch, lambda: bool(served.posts), harm)
        with pytest.raises(StoppedError, match=r"second\.jsonl: (changed during the run|no such file).*is kept") as end:
            there.run(job)
        assert not end.value.interrupted
        paid = served.prompts()
        assert paid
        if change == "edited":
            with pytest.raises(FingerprintError, match=r"the input has changed since the run began \(second\.jsonl\)"):
                there.run(job)
        if change != "edited in place":
            report = there.run(job, finish=True)
            assert (report.rows.total, report.rows.ok) == (30, len(paid))
            assert any("the results have the 30 rows that were read before that, of 35" in n for n in report.notes)
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert there.run(job).rows.ok == 35
        assert set(served.prompts().values()) == {1}
        assert read_manifest(Layout(there.run_dir)).damage == ()
