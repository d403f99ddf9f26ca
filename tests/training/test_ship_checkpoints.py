"""The maintainer's script that trains the shipped checkpoints; a subprocess, because tests import no benchmarks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from batch.routers.checkpoints.format import CHECKPOINTS, load_checkpoint
from batch.routers.registry import build_router
from schemas.routers import RouterSpec
from tests.routers.conftest import PAIR

ROUTER: TypeAdapter[RouterSpec] = TypeAdapter(RouterSpec)
ROOT = Path(__file__).parents[2]
DATA = ROOT / "../shared/data"
SHIPPED = ("correctness", "static")


def ship_checkpoints(*arguments: Path | str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.ship_checkpoints", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("content", [b"no parquet", None], ids=["garbled", "absent"])
def test_the_script_refuses_what_is_no_table(tmp_path: Path, content: bytes | None) -> None:
    """Data that cannot be read ends in one line on stderr and exit status 2, and nothing is written."""
    if content is not None:
        (tmp_path / "mmlu.parquet").write_bytes(content)
    ended = ship_checkpoints(tmp_path, "--out", tmp_path / "out")
    assert ended.returncode == 2
    assert "mmlu.parquet: not a table of judged answers" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.release
@pytest.mark.skipif(not (DATA / "mmlu.parquet").exists(), reason="the judged answers are not here")
def test_the_shipped_checkpoints_come_from_this_code(tmp_path: Path) -> None:
    """Retraining on the recorded data gives the shipped cards, and the shipped routers' scores to rounding."""
    ended = ship_checkpoints(DATA, "--out", tmp_path)
    assert ended.returncode == 0, ended.stderr
    prompts = pd.read_parquet(DATA / "mmlu.parquet", columns=["prompt"])["prompt"].head(200).tolist()
    for kind in SHIPPED:
        shipped, made = load_checkpoint(CHECKPOINTS / kind, kind), load_checkpoint(tmp_path / kind, kind)
        routers = [
            build_router(spec, PAIR, seed=0)
            for folder in (CHECKPOINTS, tmp_path)
            for spec in (ROUTER.validate_python({"kind": kind, "checkpoint": str(folder / kind)}),)
        ]
        scores = [router.score(prompts) for router in routers]
        np.testing.assert_allclose(scores[0], scores[1], rtol=0, atol=1e-3)
        assert made.config.training["data_sha256"] == shipped.config.training["data_sha256"]
        assert (tmp_path / kind / "README.md").read_text() == (CHECKPOINTS / kind / "README.md").read_text()
