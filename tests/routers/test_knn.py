"""The nearest-neighbour router over any number of models."""

import json
from pathlib import Path

import numpy as np
import pytest

from batch.errors import SpecError
from batch.routers.checkpoints.format import CONFIG
from batch.routers.estimators.neighbours import Neighbours
from batch.routers.knn import KnnRouter
from batch.routers.registry import build_router, router_fingerprint, trained_encoder
from schemas.routers import KnnRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.vectors import NumbersInText, checkpoint, texts, write_neighbours

THREE = ("small", "middle", "large")
NEAR = {"neighbours": 2, "temperature": 0.1, "shrinkage": 0.5}
# East, north and west of the middle; no answer of the large model was judged in the west.
PLACES = Neighbours(
    mean=np.zeros(2, np.float32),
    vectors=np.array([[1, 0], [0, 1], [-1, 0]], np.float16),
    quality=np.array([[0, 0.5, 1], [1, 1, 1], [1, 0, 0]], np.float32),
    judged=np.array([[1, 1, 1], [1, 1, 4], [1, 1, 0]], np.float32),
    usual=np.array([0.6, 0.5, 0.9], np.float32),
)


def test_scores_are_the_weighted_mean_of_judged_quality() -> None:
    """By hand: a place's softmax weight, less that of the first place left out, times its judged answers."""
    router = KnnRouter(THREE, checkpoint("knn", PLACES.tensors(), NEAR, THREE), NumbersInText())
    a, b = 0.8, 0.6
    east, north = 1 - np.exp((-a - a) / 0.1), np.exp((b - a) / 0.1) - np.exp((-a - a) / 0.1)
    small = (north + 0.5 * 0.6) / (east + north + 0.5)
    middle = (0.5 * east + north + 0.5 * 0.5) / (east + north + 0.5)
    large = (east + 4 * north + 0.5 * 0.9) / (east + 4 * north + 0.5)
    np.testing.assert_allclose(router.score(["0.8 0.6", "8 6"]), [[small, middle, large]] * 2, rtol=1e-5)


def test_what_was_not_judged_is_left_out() -> None:
    """In the west no answer of the large model was judged, so it keeps its usual quality instead of a bad one."""
    alone = {"neighbours": 1, "temperature": 0.1, "shrinkage": 0.5}
    router = KnnRouter(THREE, checkpoint("knn", PLACES.tensors(), alone, THREE), NumbersInText())
    scores = router.score(["-1 0"])
    assert scores[0, 2] == pytest.approx(0.9)
    assert scores[0, 0] > 0.8


def test_shrinkage_pulls_scores_to_the_usual_quality() -> None:
    """The larger `shrinkage` is, the nearer each score is to the model's usual quality."""
    scores = [
        KnnRouter(THREE, checkpoint("knn", PLACES.tensors(), NEAR | {"shrinkage": s}, THREE), NumbersInText()).score(
            ["1 0.1"]
        )
        for s in (0.1, 1.0, 10.0, 1e6)
    ]
    distances = [np.abs(score - PLACES.usual).max() for score in scores]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_the_jobs_models_are_found_by_name() -> None:
    """A job may have any of the checkpoint's models in any order, and no others."""
    stored = checkpoint("knn", PLACES.tensors(), NEAR, THREE)
    both = KnnRouter(("large", "small"), stored, NumbersInText()).score(["1 1"])
    np.testing.assert_array_equal(both, KnnRouter(THREE, stored, NumbersInText()).score(["1 1"])[:, [2, 0]])
    with pytest.raises(SpecError, match="trained on small, middle, large; 'huge' is not among them"):
        KnnRouter(("small", "huge"), stored, NumbersInText())


def test_company_and_tiny_noise_change_nothing() -> None:
    """Among thousands of places with many ties, batch, order and rounding move a score by less than 1e-5."""
    chance = np.random.default_rng(0)
    vectors = np.repeat(chance.normal(size=(1500, 8)), 2, axis=0)  # each twice, with different quality
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    places = Neighbours(
        np.zeros(8, np.float32),
        vectors.astype(np.float32),
        chance.random((3000, 2), np.float32),
        np.ones((3000, 2), np.float32),
        np.full(2, 0.5, np.float32),
    )
    options = {"neighbours": 33, "temperature": 0.05, "shrinkage": 1.0}
    router = KnnRouter(PAIR, checkpoint("knn", dict(places.tensors()), options), NumbersInText())
    asked = chance.normal(size=(600, 8))
    together = router.score(texts(asked))
    alone = np.concatenate([router.score([text]) for text in texts(asked[:100])])
    np.testing.assert_allclose(alone, together[:100], rtol=0, atol=1e-5)
    np.testing.assert_allclose(router.score(texts(asked[::-1]))[::-1], together, rtol=0, atol=1e-5)
    noisy = router.score(texts(asked + 1e-7 * chance.normal(size=asked.shape)))
    np.testing.assert_allclose(noisy, together, rtol=0, atol=1e-5)


def test_it_is_built_from_a_folder(tmp_path: Path) -> None:
    """A job's `kind: knn` loads its checkpoint; encoder and fingerprint are known before it is built."""
    spec = KnnRouterSpec(kind="knn", checkpoint=write_neighbours(tmp_path / "one", "knn"))
    assert build_router(spec, PAIR, seed=0).score(["Why?", "What is 2 + 2?"]).shape == (2, 2)
    assert trained_encoder(spec).dimension == 384
    other = KnnRouterSpec(kind="knn", checkpoint=write_neighbours(tmp_path / "two", "knn", places=40))
    assert router_fingerprint(spec) != router_fingerprint(other)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"neighbours": 0, "temperature": 0.1, "shrinkage": 1}, "options.neighbours: Input should be greater than 0"),
        ({"neighbours": 4, "shrinkage": 1}, "options.temperature: Field required"),
        ({"neighbours": 4, "temperature": 0.1, "shrinkage": 0}, "options.shrinkage: Input should be greater than 0"),
        ({"neighbours": 4, "temperature": 0.1, "shrinkage": 1, "k": 3}, "options.k: Extra inputs"),
    ],
)
def test_options_that_say_nothing_sensible_are_refused(options: dict[str, float], says: str, tmp_path: Path) -> None:
    """The message is one line that names the key."""
    folder = write_neighbours(tmp_path / "checkpoint", "knn")
    config = tmp_path / "checkpoint" / CONFIG
    config.write_text(json.dumps(json.loads(config.read_text()) | {"options": options}))
    with pytest.raises(SpecError, match=says) as refused:
        build_router(KnnRouterSpec(kind="knn", checkpoint=folder), PAIR, seed=0)
    assert "\n" not in str(refused.value)


def test_a_checkpoint_of_another_kind_or_of_nothing_is_refused(tmp_path: Path) -> None:
    """A checkpoint of clusters is not taken for one of prompts, and a checkpoint without vectors is refused."""
    folder = write_neighbours(tmp_path / "clusters", "cluster")
    with pytest.raises(SpecError, match="is for a router of kind 'cluster', not 'knn'"):
        build_router(KnnRouterSpec(kind="knn", checkpoint=folder), PAIR, seed=0)
    with pytest.raises(SpecError, match="holds no vectors"):
        build_router(KnnRouterSpec(kind="knn", checkpoint=write_neighbours(tmp_path / "empty", "knn", 0)), PAIR, seed=0)
