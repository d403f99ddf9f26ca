"""Training of the correctness heads."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.training.correctness import fit_and_cross_validate
from batch.training.data import Judged
from batch.training.fit_heads import PENALTIES, Form, Training, fit_heads
from batch.training.logistic_regression import fit_logistic
from batch.training.worded_heads import Setting
from tests.routers.conftest import PAIR

STRAIGHT = Setting("linear", 100.0, None)


class NumbersInText:
    """Embeds "0.5 1.5" as (0.5, 1.5)."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[float(word) for word in text.split()] for text in texts], dtype=np.float32)


def judged(name: str, count: int, easiness: float, seed: int) -> Judged:
    """Prompts whose first number decides whether only the strong model gets them right; `easiness` shifts the level."""
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(count, 3))
    difficulty = vectors[:, 0] - easiness
    good = np.stack([difficulty + 0.3 * chance.normal(size=count) < 0.0, difficulty < 2.5], axis=1).astype(float)
    return Judged(name, [" ".join(f"{x:.4f}" for x in row) for row in vectors], PAIR, good)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.floats(0.1, 100.0))
def test_the_fit_is_the_minimum(seed: int, penalty: float) -> None:
    """The penalised loss has a gradient of zero at the returned coefficients."""
    chance = np.random.default_rng(seed)
    features, labels = chance.normal(size=(80, 4)), (chance.random(80) < 0.3).astype(float)
    penalties = np.full(4, penalty)
    fitted = fit_logistic(features, labels, penalties)
    slope = features.T @ (1 / (1 + np.exp(-features @ fitted)) - labels) + penalties * fitted
    assert np.abs(slope).max() < 1e-4


@pytest.mark.parametrize("form", PENALTIES)
def test_labels_of_one_kind(form: Form) -> None:
    """A model that is always right gets high log odds from finite weights, instead of weights that diverge."""
    one = Training(np.random.default_rng(0).normal(size=(50, 2)), np.ones((50, 2)), np.arange(50))
    heads = next(fit_heads([one], form, [10.0])).heads()
    assert np.isfinite(heads.weight).all()
    assert (heads.logits(np.zeros((1, 2), dtype=np.float32)) > 3).all()


def test_training_finds_what_separates_prompts_and_repeats_itself() -> None:
    """Heads beat the word count on both sets in cross-validation, and training again gives the same heads."""
    sets = [judged("easy", 300, 0.5, seed=1), judged("hard", 200, -0.5, seed=2)]
    trained, again = (fit_and_cross_validate(sets, NumbersInText(), seed=5, setting=STRAIGHT) for _ in range(2))
    assert set(trained.apgr) == {"easy", "hard"}
    for name in trained.apgr:
        assert trained.apgr[name] > 0.6
        assert trained.apgr_length[name] == pytest.approx(0.5)
    assert trained.apgr == again.apgr
    np.testing.assert_array_equal(trained.heads.tensors()["weight"], again.heads.tensors()["weight"])


def test_equal_prompts_share_a_fold() -> None:
    """Copies of a prompt share a fold, so random labels cannot be memorised: cross-validation stays near one half."""
    chance = np.random.default_rng(0)
    prompts = [" ".join(f"{x:.3f}" for x in chance.normal(size=40)) for _ in range(60)] * 5
    good = np.stack([np.tile(chance.random(60) < 0.4, 5), np.tile(chance.random(60) < 0.9, 5)], axis=1).astype(float)
    # If four of a prompt's five copies were in training, they would reveal its label: the APGR would be near .8.
    noise = [Judged("noise", prompts, PAIR, good)]
    assert fit_and_cross_validate(noise, NumbersInText(), seed=0, setting=STRAIGHT).apgr["noise"] < 0.65
