"""`--finish`: writing the results of a run that has not ended."""

from pathlib import Path

import pytest

from batch.errors import SpecError
from jobs.stopped import StoppedError
from tests.job_folder import JobFolder, interrupt_after
from tests.rehearsed import serve
from tests.running.test_resuming import SLOW, narrow


def test_answered_rows_are_written_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    """`--finish` sends nothing and writes a stopped run's answered rows as ok and the others as unsent.

    The plain command then sends only the others, and its results are those of an unbroken run.
    """
    with serve(*SLOW) as served:
        there, whole = JobFolder(tmp_path / "a", served), JobFolder(tmp_path / "b", served)
        for each in (there, whole):
            each.folder.mkdir()
            each.write_prompts(80)
        with pytest.raises(StoppedError, match="add --finish to write the results"):
            there.run(there.job(models=narrow(there)), progress=interrupt_after(15))
        before = sum(served.prompts().values())
        report = there.run(finish=True)
        assert sum(served.prompts().values()) == before
        rows = there.results()
        assert [row["row"] for row in rows] == list(range(80))
        answered = [row for row in rows if row["status"] == "ok"]
        assert 15 <= len(answered) == report.rows.ok < 80
        assert report.rows.unsent == 80 - len(answered)
        assert {row["error"]["kind"] for row in rows if row["status"] == "unsent"} == {"unsent"}

        assert there.run().rows.ok == 80
        assert sum(served.prompts().values()) == 80
        whole.run()
        assert [row | {"latency_seconds": 0} for row in there.results()] == [
            row | {"latency_seconds": 0} for row in whole.results()
        ]


def test_finishing_twice_writes_the_same(tmp_path: Path) -> None:
    """Finishing twice in a row writes the same results; finishing a complete run writes its results again."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(40)
        with pytest.raises(StoppedError):
            there.run(there.job(models=narrow(there)), progress=interrupt_after(5))
        there.run(finish=True)
        first = there.results()
        there.run(finish=True)
        assert there.results() == first
        there.run()
        done = there.results()
    assert there.run(finish=True).rows.ok == 40
    assert there.results() == done


def test_there_must_be_a_run_to_finish(tmp_path: Path) -> None:
    """Without a run directory the command refuses in one line, and scores and writes nothing."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(5)
        with pytest.raises(SpecError, match="there is none at"):
            there.run(finish=True)
        with pytest.raises(SpecError, match="leave out --fresh"):
            there.run(finish=True, fresh=True)
        assert not list(tmp_path.glob("out*"))
