"""The first thing a new user runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.files.yaml_specs import load_job, load_spec
from schemas.rehearse import RehearsalSpec

# It takes half a minute, and much longer where other tests have the cores; the limit is for one that hangs.
PATIENCE_SECONDS = 600
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"


def prompts(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]


def test_prompts_are_many_different_and_labelled() -> None:
    """Hundreds of prompts in several languages, none twice, each with an id, a topic and a language."""
    rows = prompts(QUICKSTART)
    assert len(rows) >= 400
    assert len({row["prompt"] for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert all(set(row) == {"id", "prompt", "topic", "language"} for row in rows)
    assert len({row["language"] for row in rows}) >= 10
    assert len({row["topic"] for row in rows}) >= 10


def test_the_job_and_its_endpoints_fit_together() -> None:
    """Every URL of the job is served, for the model that the job expects there."""
    job = load_job(QUICKSTART / "job.yaml")
    served = load_spec(QUICKSTART / "endpoints.yaml", RehearsalSpec)
    expected = {(model.name, endpoint.url) for model in job.models for endpoint in model.endpoints}
    assert {(e.model, f"http://127.0.0.1:{e.port}/v1") for e in served.endpoints} == expected


@pytest.mark.real
def test_the_quickstart_runs_to_its_report(tmp_path: Path) -> None:
    """Every prompt is answered, in order, 40 % by the large model, and calling again with --resume changes nothing."""
    folder = tmp_path / "quickstart"
    shutil.copytree(QUICKSTART, folder, ignore=shutil.ignore_patterns("out"))
    command = [sys.executable, str(folder / "run.py")]
    first = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert first.returncode == 0, first.stdout + first.stderr

    results = folder / "out" / "results.jsonl"
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in prompts(folder)]
    assert {row["status"] for row in rows} == {"ok"}
    assert sum(row["model"] == "large-70b" for row in rows) == round(0.4 * len(rows))
    report = json.loads(Path(f"{results}.run", "report.json").read_text())
    assert report["rows"]["ok"] == len(rows)
    assert sum(model["rows"] for model in report["models"].values()) == len(rows)
    assert Path(f"{results}.run", "report.html").exists()

    before = results.read_bytes()
    again = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert results.read_bytes() == before
