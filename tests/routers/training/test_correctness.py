"""Training of logistic heads on labels of any number of models."""

import numpy as np
import pytest

from batch.errors import InputError
from batch.routers.checkpoint import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.metrics import apgr
from batch.routers.training.correctness import PENALTIES, fit_correctness, fit_heads
from batch.routers.training.data import Judged, Trained
from tests.routers.vectors import NumbersInText, hills

THREE = ("small", "middle", "large")


def router(trained: Trained) -> CorrectnessRouter:
    encoder = EncoderConfig(name="numbers", layer=0, max_tokens=9, dimension=trained.tensors["weight"].shape[1])
    config = CheckpointConfig(models=THREE, matched_by="name", encoder=encoder, weights_sha256="")
    return CorrectnessRouter(THREE, Checkpoint(config, trained.tensors), NumbersInText())


def test_what_was_judged_tells_models_apart() -> None:
    """Trained on two sets with answers left out, three models' scores rank fresh prompts far better than by lot."""
    sets = [hills(400, seed, models=THREE) for seed in (1, 2)]
    for judged in sets:
        judged.quality[np.random.default_rng(5).random(judged.quality.shape) < 0.3] = np.nan
    trained, again = (fit_correctness(sets, NumbersInText(), 0, 0.2) for _ in range(2))
    fresh = hills(400, seed=9, models=THREE)
    scores = router(trained).score(fresh.prompts)
    assert apgr(scores[:, 2] - scores[:, 0], fresh.quality[:, 0], fresh.quality[:, 2]) > 0.65
    assert trained.chosen["penalty"] in PENALTIES
    np.testing.assert_array_equal(trained.tensors["weight"], again.tensors["weight"])


def test_a_model_judged_in_one_set_only() -> None:
    """Its intercept is that of the set where it was judged; the empty one does not pull it anywhere."""
    sets = [hills(200, seed, models=THREE) for seed in (1, 2)]
    sets[1].quality[:, 1] = np.nan
    both = fit_heads([np.zeros((200, 1)), np.zeros((200, 1))], [one.quality for one in sets], 1.0).heads()
    mean = sets[0].quality[:, 1].mean()
    assert both.bias[1] == pytest.approx(np.log(mean / (1 - mean)), abs=1e-3)


def test_a_start_changes_the_way_and_not_the_end() -> None:
    """Heads that were fitted from those of another penalty are those fitted from nothing."""
    one = hills(300, seed=4)
    vectors = [NumbersInText().embed(one.prompts).astype(float)]
    other = fit_heads(vectors, [one.quality], 1.0)
    fitted, warm = (fit_heads(vectors, [one.quality], 50.0, start) for start in (None, other))
    np.testing.assert_allclose(warm.weight, fitted.weight, rtol=0, atol=1e-5)
    np.testing.assert_allclose(warm.intercepts, fitted.intercepts, rtol=0, atol=1e-5)


def test_data_that_does_not_suffice_is_refused() -> None:
    """Sets of different models, a model nobody judged, and too few prompts each end in one line."""
    one = hills(50, seed=1, models=THREE)
    two = hills(50, seed=1)
    unjudged = Judged("none", one.prompts, THREE, np.where([True, False, True], one.quality, np.nan))
    few = Judged("few", ["1 2"] * 3, THREE, np.ones((3, 3)))
    for data, says in (([one, two], "the same models"), ([unjudged], "no answer of middle"), ([few], "too few")):
        with pytest.raises(InputError, match=says):
            fit_correctness(data, NumbersInText(), 0, 0.2)
