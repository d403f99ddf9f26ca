"""Journals that lose answers or are in the wrong place: the report names the rows, and no others are sent again."""

import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from shutil import rmtree

import pytest

from batch.runs.journal.spent import spent
from batch.runs.layout import Layout
from jobs.stopped import StoppedError
from tests.job_folder import ENDPOINTS, JobFolder, interrupt_after
from tests.rehearsed import Served, serve
from tests.running.test_resuming import SLOW, narrow
from tests.runs.shards import PRICES

Harm = Callable[[Path], object]


def cut_at_a_line(path: Path) -> None:
    """Cut off the last lines of a journal, each of them whole."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))


def zero_the_tail(path: Path) -> None:
    """Overwrite the end of a file with zeros, as a disk does that loses its last blocks."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


HARMS: dict[str, Harm] = {
    "cut": cut_at_a_line,
    "emptied": lambda path: os.truncate(path, 0),
    "zeroed": zero_the_tail,
    "gone": Path.unlink,
    "folder gone": lambda path: rmtree(path.parent),
    "all gone": lambda path: rmtree(path.parent.parent),
}


def answered_rows(served: Served) -> set[str]:
    return {f"r{prompt.split()[0][1:]}" for prompt in served.prompts()}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_answers_lost_after_their_shard_was_committed_are_named(harm: Harm, tmp_path: Path) -> None:
    """If journal and part both lose answers, their rows are sent and paid again, and the report names exactly these."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        there.run()
        before = [{**row, "latency_seconds": 0} for row in there.results()]
        served.forget()
        layout = Layout(there.run_dir)
        harm(layout.journal(0, "small"))
        rmtree(layout.part(0, "jsonl").parent)
        report = there.run()
        again = answered_rows(served)
        assert again
        assert {row.id for row in report.ambiguous} == again
        assert any("held answers that are gone from it" in note for note in report.notes)
        after = [{**row, "latency_seconds": 0, "attempts": 1} for row in there.results()]
        assert after == before
        served.forget()
        assert {row.id for row in there.run().ambiguous} == again, "it stays said"
        assert served.posts == []


@pytest.mark.parametrize("on_ambiguous", ["retry", "fail"])
def test_answers_lost_between_sittings_are_named(on_ambiguous: str, tmp_path: Path) -> None:
    """An interrupted run notices lost answers; `on_ambiguous` decides whether their rows are sent and paid again."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(60)
        job = there.job(models=narrow(there), dispatch={"on_ambiguous": on_ambiguous})
        with pytest.raises(StoppedError):
            there.run(job, progress=interrupt_after(10))
        paid = answered_rows(served)
        served.forget()
        layout = Layout(there.run_dir)
        cut_at_a_line(layout.journal(0, "small"))
        report = there.run(job)
        again = answered_rows(served) & paid
        named = {row.id for row in report.ambiguous}
        assert named
        assert again == (named if on_ambiguous == "retry" else set())
        assert report.rows.failed == (0 if on_ambiguous == "retry" else len(named))
        assert named < paid


@pytest.mark.parametrize("layouts", [("small", "large"), ("large", "small")])
def test_swapped_journals_are_put_back(layouts: tuple[str, str], tmp_path: Path) -> None:
    """After two journals are swapped, nothing is sent again, and the results are the same."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        there.run()
        before = there.results()
        served.forget()
        layout = Layout(there.run_dir)
        one, other = (layout.journal(0, model) for model in layouts)
        one.rename(one.with_name("between"))
        other.rename(one)
        one.with_name("between").rename(other)
        rmtree(layout.part(0, "jsonl").parent)
        there.run()
        assert served.posts == []
        assert there.results() == before


def test_a_journal_that_was_copied_over_another_is_set_aside(tmp_path: Path) -> None:
    """If a journal is copied over another, the rows of the overwritten one are named in the report and sent again."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        there.run()
        before = [row["content"] for row in there.results()]
        served.forget()
        layout = Layout(there.run_dir)
        small, large = (layout.journal(0, model) for model in ("small", "large"))
        small.write_bytes(large.read_bytes())
        rmtree(layout.part(0, "jsonl").parent)
        report = there.run()
        assert {row.id for row in report.ambiguous} == answered_rows(served)
        assert len(served.posts) == 10
        assert [row["content"] for row in there.results()] == before
        assert small.with_name("small.jsonl.misplaced").exists()


def test_lost_answers_are_not_forgotten_by_the_budget(tmp_path: Path) -> None:
    """Rows whose journals are gone still count against the budget, at the most that they can have cost."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        there.run(there.job(input={"path": str(there.folder / "prompts.jsonl"), "params": {"max_tokens": 50}}))
        layout = Layout(there.run_dir)
        prices = {"small": PRICES["weak"], "large": PRICES["strong"]}
        before = spent(layout, prices)
        rmtree(layout.journals)
        assert spent(layout, prices) >= before > Decimal(0)


@pytest.mark.parametrize("counted", [True, False])
def test_a_lost_answer_that_another_shard_shares_is_requested_again(counted: bool, tmp_path: Path) -> None:
    """The shard of the lost answer is committed, but the shard that shares the answer would wait for it forever.

    If the record of what the journal held is gone too, the report cannot name the rows, but they are sent again.
    """
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        for name in ("a.jsonl", "b.jsonl"):
            there.write([{"prompt": "same"}, {"prompt": f"own of {name}"}], name)
        paths = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
        plan = {"strategy": "pin", "model": "small"}
        job = there.job(input={"path": paths, "params": {"temperature": 0}}, plan=plan)
        there.run(job)
        before = [row["content"] for row in there.results()]
        served.forget()
        layout = Layout(there.run_dir)
        layout.journal(0, "small").unlink()
        layout.part(1, "jsonl").unlink()
        if not counted:
            layout.answered(0).unlink()
        report = there.run(job)
        assert report.rows.ok == 4
        assert [row["content"] for row in there.results()] == before
        assert {row.row for row in report.ambiguous} == ({0, 1} if counted else set())
        assert served.prompts() == {"same": 1, "own of a.jsonl": 1}
