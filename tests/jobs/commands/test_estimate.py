"""`estimate`: what it reads, and which jobs it refuses."""

import json
from pathlib import Path

from jobs import estimate
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served


def test_a_sample_stands_for_the_whole_input(job: Job, tmp_path: Path, served: Served) -> None:
    """A twentieth of 400 rows is scored; the estimate's rows and dollars are those of all 400."""
    (tmp_path / "prompts.jsonl").write_text("".join(f'{{"prompt": "p{i:03}", "max_tokens": 10}}\n' for i in range(400)))
    path = written(job | {"router": {"kind": "length"}}, tmp_path)
    whole, sampled = estimate(path), estimate(path, sample=20)
    assert (whole.rows.total, sampled.rows.total) == (400, 400)
    assert (whole.sampled, sampled.sampled) == (None, 20)
    assert abs(float(sampled.cost_usd.expected / whole.cost_usd.expected) - 1) < 0.01
    assert sum(model.rows for model in sampled.models.values()) == 400
    assert served.posts == []


def test_the_first_rows_are_estimated_alone(job: Job, tmp_path: Path, command: Command) -> None:
    """`--limit 2` estimates two rows, not the whole input."""
    found = json.loads(command("estimate", written(job, tmp_path), "--limit", "2", "--json").out)
    assert found["rows"]["total"] == 2


def test_a_job_whose_results_would_replace_its_input_is_refused(job: Job, tmp_path: Path, command: Command) -> None:
    """`estimate` refuses what `check` and `run` refuse."""
    job["output"] = {"path": job["input"]["path"]}
    ended = command("estimate", written(job, tmp_path))
    assert ended.status == 2
    assert "the results would replace the input" in ended.err
