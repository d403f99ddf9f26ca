"""`run --rehearse` runs the whole job against stand-in endpoints."""

import json
from pathlib import Path

import pytest

from jobs.exit_status import Exit
from jobs.rehearsal.stand_ins import rehearsed
from schemas.job import JobSpec
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served


@pytest.mark.parametrize(
    "missing", [{"api_key_env": "NO_SUCH_KEY"}, {"headers": {"x-team": "${NO_SUCH_TEAM}"}}], ids=str
)
def test_a_rehearsal_needs_no_key_and_touches_nothing_real(
    command: Command, job: Job, tmp_path: Path, served: Served, missing: dict[str, object]
) -> None:
    """Its results are beside the real ones, its report has what they would cost; real endpoints get no request."""
    for model in job["models"]:
        model["endpoints"][0] |= missing
    path = written(job, tmp_path)
    assert command("run", path).status == Exit.WRONG, "the real run needs what is not set"

    ended = command("run", path, "--rehearse", "--json")
    assert (ended.status, ended.faults) == (Exit.OK, [])
    assert json.loads(ended.out)["cost_usd"] > 0
    assert json.loads(ended.out)["name"] == "job (rehearsal)"
    assert served.posts == []
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == [
        "results.rehearsal.jsonl",
        "results.rehearsal.jsonl.run",
    ]
    rows = (tmp_path / "out" / "results.rehearsal.jsonl").read_text().splitlines()
    assert [json.loads(row)["status"] for row in rows] == ["ok"] * 3


@pytest.mark.parametrize(
    ("output", "path"),
    [
        ({"path": "/data/out.jsonl"}, "/data/out.rehearsal.jsonl"),
        ({"path": "/data/out/"}, "/data/out.rehearsal/"),
        ({"path": "/data/out.parquet", "run_dir": "/runs/7"}, "/data/out.rehearsal.parquet"),
        ({"path": "s3://bucket/out.jsonl", "run_dir": "/runs/out.jsonl.run"}, "/runs/out.rehearsal.jsonl"),
    ],
)
def test_results_of_a_rehearsal_lie_beside_the_real_ones(job: Job, output: dict[str, str], path: str) -> None:
    """This holds for a file and a folder; results for an object store stay local. No run directory is shared."""
    spec = JobSpec.model_validate(job | {"output": output})
    with rehearsed(spec) as rehearsal:
        assert (rehearsal.output.path, rehearsal.output.run_dir) == (path, None)


def test_stand_ins_have_the_limits_of_the_real_ones(job: Job) -> None:
    """A stand-in has the real endpoint's weight and limits, but not its url or key."""
    job["models"][0]["endpoints"][0] |= {"weight": 3, "limits": {"rpm": 600, "tpm": 9000}, "api_key_env": "NO_SUCH_KEY"}
    spec = JobSpec.model_validate(job)
    with rehearsed(spec) as rehearsal:
        real, stand_in = spec.models[0].endpoints[0], rehearsal.models[0].endpoints[0]
        assert (stand_in.weight, stand_in.limits, stand_in.api_key_env) == (3, real.limits, None)
        assert stand_in.url is not None
        assert stand_in.url != real.url
