"""Removed and damaged files of a run directory are made again if they can be, and nothing is paid twice."""

from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

import pytest

from batch.runs.layout import Layout
from tests.job_folder import ENDPOINTS, JobFolder
from tests.rehearsed import serve

Harm = Callable[[Layout], object]


def _gone(name: str) -> Harm:
    def harm(layout: Layout) -> None:
        path = layout.path / name
        rmtree(path) if path.is_dir() else path.unlink()

    return harm


def _broken(name: str) -> Harm:
    def harm(layout: Layout) -> None:
        path = layout.path / name
        path.write_bytes(path.read_bytes()[:9])

    return harm


def _flipped(name: str) -> Harm:
    def harm(layout: Layout) -> None:
        path = layout.path / name
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    return harm


def _swapped(one: str, other: str) -> Harm:
    def harm(layout: Layout) -> None:
        first, second = (layout.path / name for name in (one, other))
        kept = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(kept)

    return harm


def _several(*harms: Harm) -> Harm:
    def harm(layout: Layout) -> None:
        for one in harms:
            one(layout)

    return harm


HARMS: dict[str, Harm] = {
    "part": _gone("output/part-00000.jsonl"),
    "parts": _gone("output"),
    "record": _broken("committed/00000.json"),
    "records": _gone("committed"),
    "verdicts": _gone("verdicts"),
    "damaged verdicts": _several(_broken("verdicts/00000.json"), _gone("committed")),
    "routed": _several(_gone("routed/small"), _gone("committed")),
    "scores": _several(_gone("scored"), _gone("committed")),
    "plan": _gone("plan.json"),
    "all that follows from scores": _several(*map(_gone, ("plan.json", "verdicts", "routed", "committed", "output"))),
    "report": _broken("report.json"),
    "report and part": _several(_gone("report.json"), _gone("output/part-00000.jsonl")),
    "run.json": _gone("run.json"),
    "damaged run.json": _flipped("run.json"),
    "flipped part": _flipped("output/part-00000.jsonl"),
    "flipped record": _flipped("committed/00000.json"),
    "flipped verdicts": _several(_flipped("verdicts/00000.json"), _gone("committed")),
    "flipped routed": _several(_flipped("routed/small/00000.parquet"), _gone("committed")),
    "swapped routed": _several(
        _swapped("routed/small/00000.parquet", "routed/large/00000.parquet"), _gone("committed")
    ),
    "truncated routed": _several(_broken("routed/large/00000.parquet"), _gone("committed")),
    "flipped scores": _several(_flipped("scored/00000.parquet"), _gone("committed")),
    "truncated scores": _several(_broken("scored/00000.parquet"), _gone("committed")),
    "flipped scores and verdicts": _several(*map(_flipped, ("scored/00000.parquet", "verdicts/00000.json"))),
    "record of scores": _several(_flipped("scored/00000.json"), _gone("committed")),
    "damaged plan": _flipped("plan.json"),
    "limits": _several(lambda layout: layout.found_limits.write_bytes(b"{"), _gone("committed")),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_lost_files_are_made_again_and_nothing_is_sent(harm: Harm, tmp_path: Path) -> None:
    """Any file that follows from input and journals may be lost: the next run makes it again, with equal results."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        before = there.run()
        results = there.results_path.read_bytes()
        served.forget()
        harm(Layout(there.run_dir))
        after = there.run()
        assert served.posts == []
        assert there.results_path.read_bytes() == results
        assert (after.rows, after.cost_usd, after.plan) == (before.rows, before.cost_usd, before.plan)


def test_scores_that_are_gone_when_all_is_answered_are_waited_for(tmp_path: Path) -> None:
    """If all rows are answered, the dispatcher ends at once, and the run still scores and commits every shard."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        names = [f"{name}.jsonl" for name in "abcdef"]
        for name in names:
            there.write([{"id": f"{name}{i}", "prompt": f"{name} {i}"} for i in range(4)], name)
        job = there.job(input={"path": [str(tmp_path / name) for name in names]})
        there.run(job)
        results = there.results_path.read_bytes()
        served.forget()
        for name in ("scored", "committed"):
            rmtree(there.run_dir / name)
        there.run(job)
        assert served.posts == []
        assert there.results_path.read_bytes() == results


def test_a_shard_whose_scores_are_made_again_is_committed_after_that(tmp_path: Path) -> None:
    """The results wait for the scores, even if all rows of the shard are answered before it is scored again."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        there.run()
        results = there.results_path.read_bytes()
        served.forget()
        layout = Layout(there.run_dir)
        layout.scored_record(0).write_bytes(b"")
        _gone("committed")(layout)
        report = there.run()
        assert served.posts == []
        assert there.results_path.read_bytes() == results
        assert report.notes == ("scored/00000.parquet of the run directory was damaged or gone, and was made again",)
