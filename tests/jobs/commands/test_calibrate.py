"""`calibrate`: it finds cutoffs for a job's own input."""

import json
from pathlib import Path

import pytest
import yaml

from jobs import calibrate
from jobs.commands.run import run_job
from jobs.exit_status import Exit
from jobs.files.yaml_specs import load_job
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served


def write_prompts(folder: Path, count: int = 40) -> None:
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "prompt {i}"}}\n' for i in range(count)))


def test_a_pasted_cutoff_sends_the_share(command: Command, job: Job, tmp_path: Path, served: Served) -> None:
    """`calibrate` sends nothing; its `plan:` line, pasted into the job, sends exactly that share to the strongest."""
    write_prompts(tmp_path)
    ended = command("calibrate", written(job, tmp_path), "--strong", "0.3")
    assert (ended.status, ended.faults, served.posts) == (Exit.OK, [], [])
    (line,) = [line for line in ended.out.splitlines() if line.startswith("plan: ")]
    assert "30 % (12) to large" in line
    job |= yaml.safe_load(line[: line.index("}") + 1])
    report = run_job(load_job(written(job, tmp_path)))
    assert report.models["large"].rows == 12


def test_several_shares_as_json(command: Command, job: Job, tmp_path: Path) -> None:
    """The JSON has one cutoff per share, in the order of the options; cutoffs fall as shares grow."""
    write_prompts(tmp_path)
    ended = command(
        "calibrate", written(job, tmp_path), "--strong", "0.2", "--strong", "0.5", "--strong", "1", "--json"
    )
    found = json.loads(ended.out)
    assert [cut["rows"] for cut in found["cutoffs"]] == [8, 20, 40]
    cutoffs = [cut["cutoff"] for cut in found["cutoffs"]]
    assert cutoffs == sorted(cutoffs, reverse=True)
    assert (found["total"], found["scored"], found["sampled"], found["strongest"]) == (40, 40, None, "large")


def test_rows_that_a_plan_does_not_decide_do_not_count(job: Job, tmp_path: Path) -> None:
    """Invalid rows, repeated ids, and rows with a model or cutoff of their own are left out, as a share plan does."""
    write_prompts(tmp_path, 10)
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions"}
    with (tmp_path / "prompts.jsonl").open("a") as more:
        for row in (
            {"prompt": 7},
            {"prompt": "a", "model": "small"},
            {"prompt": "b", "model": "router-random-0.1"},
            {**line, "body": {"messages": [{"role": "user", "content": "c"}]}},
            {**line, "body": {"messages": [{"role": "user", "content": "d"}]}},
        ):
            more.write(json.dumps(row) + "\n")
    found = calibrate(written(job, tmp_path), [0.5])
    assert (found.total, found.scored) == (15, 11)


def test_any_plan_is_calibrated(job: Job, tmp_path: Path) -> None:
    """A job that pins every row would score none, but `calibrate` scores its rows all the same."""
    write_prompts(tmp_path)
    shared = calibrate(written(job, tmp_path), [0.25])
    pinned = calibrate(written(job | {"plan": {"strategy": "pin", "model": "small"}}, tmp_path), [0.25])
    assert shared.cutoffs == pinned.cutoffs


def test_a_sample_is_scored_only(job: Job, tmp_path: Path) -> None:
    """With `sample` only about that many rows are scored, and the report says so."""
    write_prompts(tmp_path, 100)
    found = calibrate(written(job, tmp_path), [0.5], sample=20)
    assert (found.total, found.sampled, found.scored, found.cutoffs[0].rows) == (100, 20, 20, 10)


def test_ties_are_reported(command: Command, job: Job, tmp_path: Path) -> None:
    """If all rows have the same score, no cutoff sends half: the output says what it sends, and which plan would."""
    ended = command("calibrate", written(job | {"router": {"kind": "constant"}}, tmp_path), "--strong", "0.3")
    assert ended.status == Exit.OK
    said = " ".join(ended.out.split())
    assert "0 % (0) to large" in said
    assert "3 rows have the same score where 30 % would end" in said
    assert "plan: {strategy: share, strong: 0.3}" in said


@pytest.mark.parametrize("trouble", ["one model", "no score", "no share", "share above one"])
def test_what_cannot_be_calibrated(command: Command, job: Job, tmp_path: Path, trouble: str) -> None:
    """The command ends with status 2 and, for a fault of the job, with one line that gives the reason."""
    options = {"no share": (), "share above one": ("--strong", "1.5")}.get(trouble, ("--strong", "0.5"))
    if trouble == "one model":
        job["models"].pop()
    if trouble == "no score":
        (tmp_path / "prompts.jsonl").write_text('{"prompt": "a", "model": "small"}\n')
    ended = command("calibrate", written(job, tmp_path), *options)
    assert ended.status == Exit.WRONG
    assert ended.out == ""
    if trouble in ("one model", "no score"):
        assert len(ended.faults) == 1
