"""Training of logistic heads on labels of any number of models."""

import numpy as np
import pytest

from batch.arrays import Floats
from batch.errors import InputError
from batch.measures.pair import apgr
from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.estimators.logistic_heads import Heads
from batch.training.correctness import fit_and_cross_validate, fit_correctness
from batch.training.data import Judged, Trained
from batch.training.fit_heads import PENALTIES, Form, Training, fit_heads
from batch.training.worded_heads import Setting
from tests.routers.vectors import NumbersInText, hills, texts

THREE = ("small", "middle", "large")


def router(trained: Trained) -> CorrectnessRouter:
    encoder = EncoderConfig(name="numbers", layer=0, max_tokens=9, dimension=6)
    config = CheckpointConfig(
        models=THREE, matched_by="name", encoder=encoder, options=dict(trained.options), weights_sha256=""
    )
    return CorrectnessRouter(THREE, Checkpoint(config, trained.tensors), NumbersInText())


def test_what_was_judged_tells_models_apart() -> None:
    """Trained on two sets with answers left out, three models' scores rank fresh prompts far better than chance."""
    sets = [hills(70, seed, models=THREE) for seed in (1, 2)]
    for judged in sets:
        judged.quality[np.random.default_rng(5).random(judged.quality.shape) < 0.3] = np.nan
    trained, again = (fit_correctness(sets, NumbersInText(), 0, 0.2) for _ in range(2))
    fresh = hills(400, seed=9, models=THREE)
    scores = router(trained).score(fresh.prompts)
    assert apgr(scores[:, 2] - scores[:, 0], fresh.quality[:, 0], fresh.quality[:, 2]) > 0.65
    assert trained.chosen["penalty"] in PENALTIES[trained.chosen["heads"]]
    np.testing.assert_array_equal(trained.tensors["weight"], again.tensors["weight"])


def training(vectors: Floats, one: Judged) -> Training:
    return Training(vectors, one.quality, np.arange(len(vectors)))


def test_a_model_judged_in_one_set_only() -> None:
    """A model's intercept comes from the set in which it was judged; a set without its labels does not pull it."""
    sets = [hills(200, seed, models=THREE) for seed in (1, 2)]
    sets[1].quality[:, 1] = np.nan
    both = next(fit_heads([training(np.zeros((200, 1)), one) for one in sets], "linear", [1.0])).heads()
    mean = sets[0].quality[:, 1].mean()
    assert both.bias[1] == pytest.approx(np.log(mean / (1 - mean)), abs=1e-3)


@pytest.mark.parametrize("form", PENALTIES)
def test_a_penalty_tried_before_changes_nothing(form: Form) -> None:
    """Heads that start from those of another penalty come out equal to heads fitted from scratch."""
    one = hills(300, seed=4)
    sets = [training(NumbersInText().embed(one.prompts).astype(float), one)]
    (fresh,) = fit_heads(sets, form, [50.0])
    _, after = fit_heads(sets, form, [1.0, 50.0])
    np.testing.assert_allclose(after.heads().weight, fresh.heads().weight, rtol=0, atol=1e-4)
    np.testing.assert_allclose(after.intercepts, fresh.intercepts, rtol=0, atol=1e-4)


def test_landmarks_see_what_is_no_straight_line() -> None:
    """Linear heads cannot find a ring of prompts around those that the weak model gets right; the other forms can."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(200, 2))
    inside = (vectors**2).sum(axis=1) < 1.2
    ring = Judged("ring", texts(vectors), ("a", "b"), np.stack([inside, np.ones(200)], axis=1).astype(float))
    embedder = NumbersInText()
    found = {
        form: fit_and_cross_validate([ring], embedder, 0, Setting(form, penalties[0], None)).apgr["ring"]
        for form, penalties in PENALTIES.items()
    }
    assert found["linear"] < 0.6
    assert found["landmarks"] > 0.7
    assert found["components"] > 0.7
    assert fit_correctness([ring], NumbersInText(), 0, 0.2).chosen["heads"] != "linear"


def test_likeness_looks_where_models_differ() -> None:
    """The trait that separates right answers from wrong ones weighs more than one in which prompts vary more.

    There are at most 64 components. The head of a model whose answers are all right predicts just that.
    """
    chance = np.random.default_rng(2)
    traits = chance.normal(size=(300, 2))
    vectors = np.repeat(traits, [42, 38], axis=1) + 0.1 * chance.normal(size=(300, 80))
    right = np.stack([np.abs(traits[:, 1]) < 1.0, np.ones(300)], axis=1).astype(float)
    judged = Judged("traits", texts(vectors), ("a", "b"), right)
    heads = next(fit_heads([training(vectors, judged)], "components", [1.0])).heads()
    assert heads.landmarks is not None
    assert heads.landmarks.scale.shape == (80, 64)
    counts = (heads.landmarks.scale**2).sum(axis=0)
    assert counts[1] > 1.5 * counts[0]
    assert counts[0] > 1.5 * counts[2:].max()
    logits = heads.logits(vectors.astype(np.float32))
    assert (logits[:, 1] > 3).all()
    encoder = EncoderConfig(name="numbers", layer=0, max_tokens=9, dimension=80)
    config = CheckpointConfig(models=("a", "b"), matched_by="name", encoder=encoder, weights_sha256="")
    stored = Heads.of(Checkpoint(config, heads.tensors())).logits(vectors.astype(np.float32))
    np.testing.assert_array_equal(stored, logits)


def test_data_that_does_not_suffice_is_refused() -> None:
    """Sets of different models, a model without judged answers, and too few prompts are each refused."""
    one = hills(50, seed=1, models=THREE)
    two = hills(50, seed=1)
    unjudged = Judged("none", one.prompts, THREE, np.where([True, False, True], one.quality, np.nan))
    few = Judged("few", ["1 2"] * 3, THREE, np.ones((3, 3)))
    for data, says in (([one, two], "the same models"), ([unjudged], "no answer of middle"), ([few], "too few")):
        with pytest.raises(InputError, match=says):
            fit_correctness(data, NumbersInText(), 0, 0.2)


@pytest.mark.parametrize("seed", range(6))
def test_twenty_prompts_suffice(seed: int) -> None:
    """The 18 prompts that training keeps of 20 are enough for any seed: of ten folds, empty ones are skipped."""
    trained = fit_correctness([hills(18, seed, models=THREE)], NumbersInText(), seed, 0.1)
    assert np.isfinite(trained.chosen["validation_loss"])
