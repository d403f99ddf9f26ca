"""Scores of benchmarks' prompts, and the cache that keeps them between runs."""

import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.environment import NO_ENVIRONMENT
from batch.errors import SpecError
from batch.evaluation.scores import Scored, ScoringSettings, score_prompts, trained_on
from batch.routers.base import Router
from batch.routers.checkpoints.format import CONFIG, DEFAULT_CHECKPOINT, TRAINING, WEIGHTS
from batch.routers.registry import build_router
from schemas.embedders import ImportEmbedderSpec
from schemas.routers import (
    BertRouterSpec,
    CausalLlmRouterSpec,
    CorrectnessRouterSpec,
    ImportRouterSpec,
    LengthRouterSpec,
    RouterSpec,
    RuleSpec,
    RulesRouterSpec,
)
from tests.routers.embedders.endpoint_checkpoint import write_checkpoint

PAIR = ("small", "large")
PROMPTS = ["What is two plus two?", "Prove that there are infinitely many primes.", "What is two plus two?"]


class Told:
    """A user's own router: its columns come in the order of `columns`, and `ASKED` records each prompt it scores."""

    def __init__(self, columns: list[str]) -> None:
        self.models = tuple(columns)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        ASKED.extend(prompts)
        row = [len(name) / 10 for name in self.models]
        return np.tile(np.array(row, dtype=np.float32), (len(prompts), 1))


ASKED: list[str] = []


def score(
    spec: RouterSpec, prompts: Sequence[str], cache: Path, models: tuple[str, ...] = PAIR, version: str = "1"
) -> Scored:
    scoring = ScoringSettings(seed=0, version=version, cache=cache, environment=NO_ENVIRONMENT)
    return score_prompts(spec, models, prompts, scoring, lambda done, total: None)


def copied(folder: Path) -> CorrectnessRouterSpec:
    shutil.copytree(DEFAULT_CHECKPOINT, folder)
    return CorrectnessRouterSpec(checkpoint=str(folder))


@pytest.fixture(scope="module")
def router() -> Router:
    return build_router(CorrectnessRouterSpec(), PAIR, seed=0)


def test_scores_are_the_routers_and_are_kept(router: Router, tmp_path: Path) -> None:
    """Each distinct prompt is scored once; the second run takes scores from the cache, without the router's weights."""
    spec = copied(tmp_path / "mine")
    first = score(spec, PROMPTS, tmp_path)
    np.testing.assert_allclose(first.predicted, router.score(PROMPTS), atol=1e-5)
    assert first.asked == 2
    (tmp_path / "mine" / WEIGHTS).unlink()
    again = score(spec, PROMPTS[::-1], tmp_path)
    assert again.asked == 0
    np.testing.assert_array_equal(again.predicted, first.predicted[::-1])
    with pytest.raises(SpecError, match=WEIGHTS):
        score(spec, ["another"], tmp_path)


def test_other_weights_models_or_versions_have_other_scores(tmp_path: Path) -> None:
    """Another config, model list or version is not served cached scores; a checkpoint that only moved is."""
    spec = copied(tmp_path / "mine")
    score(spec, PROMPTS, tmp_path)
    (tmp_path / "mine").rename(tmp_path / "moved")
    moved = CorrectnessRouterSpec(checkpoint=str(tmp_path / "moved"), batch_tokens=512)
    assert score(moved, PROMPTS, tmp_path).asked == 0
    assert score(moved, PROMPTS, tmp_path, models=("small", "medium", "large")).asked == 2
    assert score(moved, PROMPTS, tmp_path, version="2").asked == 2
    config = tmp_path / "moved" / CONFIG
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 1'))
    assert score(moved, PROMPTS, tmp_path).asked == 2


def test_routers_without_weights_are_asked_every_time(tmp_path: Path) -> None:
    """Scores of the word count are not worth caching, and a user's own class may have changed between two runs."""
    mine = ImportRouterSpec(kind="import", path=f"{__name__}:Told", options={"columns": ["large", "small", "other"]})
    ASKED.clear()
    for _ in range(2):
        assert score(LengthRouterSpec(kind="length"), PROMPTS, tmp_path).asked == 2
        found = score(mine, PROMPTS, tmp_path, models=("small", "medium", "large"))
        np.testing.assert_allclose(found.predicted, np.tile([0.5, np.nan, 0.5], (3, 1)), atol=1e-6)
    assert PROMPTS[:2] * 2 == ASKED
    assert list(tmp_path.iterdir()) == []


def test_scores_by_an_embedder_of_the_users_own_are_not_kept(tmp_path: Path) -> None:
    """Scores are not cached: the embedder's class may have changed although the checkpoint has not."""
    own = ImportEmbedderSpec(
        kind="import", path="tests.routers.thirdparty:CountsCharacters", options={"characters": "abcdefgh"}
    )
    encoder = {"kind": "import", "name": own.path, "max_tokens": None, "dimension": 8}
    spec = CorrectnessRouterSpec(checkpoint=write_checkpoint(tmp_path / "made", **encoder), embedder=own)
    for _ in range(2):
        assert score(spec, PROMPTS, tmp_path / "cache").asked == 2
    assert not (tmp_path / "cache").exists()


def test_rules_name_the_benchmarks_models(tmp_path: Path) -> None:
    """Rules that name a model which the benchmark does not have are refused."""
    rules = RulesRouterSpec(kind="rules", rules=(RuleSpec(min_words=1, model="huge"),))
    with pytest.raises(SpecError, match="'huge', which is not among: small, large"):
        score(rules, PROMPTS, tmp_path)


def test_a_checkpoint_tells_what_it_was_trained_on(tmp_path: Path) -> None:
    """`trained_on` finds the SHA-256 of a training file in `config.json`; without a checkpoint it returns False."""
    digest = sha256(b"labels").hexdigest()
    spec = copied(tmp_path / "mine")
    assert not trained_on(spec, [digest])
    config = tmp_path / "mine" / CONFIG
    config.write_text(config.read_text().replace('"data_sha256": {', f'"data_sha256": {{"mine.jsonl": "{digest}",'))
    assert trained_on(spec, ["0" * 64, digest])
    assert not trained_on(CorrectnessRouterSpec(), [digest])
    assert not trained_on(LengthRouterSpec(kind="length"), [digest])
    config.unlink()
    assert not trained_on(spec, [digest])
    with pytest.raises(SpecError, match="no such folder, and no such repository"):
        trained_on(CorrectnessRouterSpec(checkpoint="nobody/nothing"), [digest])


def test_a_fine_tuned_checkpoint_tells_what_it_was_trained_on(tmp_path: Path) -> None:
    """Its config.json is the model's own, so `trained_on` also reads the training report beside it."""
    digest = sha256(b"labels").hexdigest()
    (tmp_path / CONFIG).write_text("{}")
    specs = (
        BertRouterSpec(kind="bert", checkpoint=str(tmp_path)),
        CausalLlmRouterSpec(kind="causal_llm", checkpoint=str(tmp_path)),
    )
    assert not any(trained_on(spec, [digest]) for spec in specs)
    (tmp_path / TRAINING).write_text(f'{{"data": [{{"files": [{{"sha256": "{digest}"}}]}}]}}')
    assert all(trained_on(spec, [digest]) for spec in specs)
    assert not any(trained_on(spec, ["0" * 64]) for spec in specs)
