"""The example that trains a router."""

import shutil
from pathlib import Path

import pytest

from jobs import train
from schemas.training import TrainKind

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("kind", ["correctness", "cluster"])
def test_the_example_trains_a_router_that_is_better_than_lots(kind: TrainKind, tmp_path: Path) -> None:
    """Whatever kind it is asked for, it does better on held-out prompts than drawing lots and than the word count."""
    folder = tmp_path / "train"
    shutil.copytree(EXAMPLES / "train", folder, ignore=shutil.ignore_patterns("out"))
    report = train(folder / "train.yaml", settings=[f"kind={kind}", f"output={tmp_path / 'made'}"])
    figures = report.held_out["labels"]
    assert figures.prompts > 80
    assert figures.apgr > max(figures.apgr_random, figures.apgr_length)
