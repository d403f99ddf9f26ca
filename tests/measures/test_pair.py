"""The exact measures over bootstrap resamples: APGR, CPT and their intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.measures.bootstrap import interval, resampled
from batch.measures.pair import PairOrder, apgr
from tests.measures import reference

LEVELS = (0.2, 0.5, 0.8)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 60))
def test_over_all_prompts_they_are_the_exact_measures(seed: int, prompts: int, distinct: int) -> None:
    """With all weights 1, APGR and CPT equal those of the reference, however many scores are equal."""
    chance = np.random.default_rng(seed)
    scores, weak = chance.integers(0, distinct, prompts) / 3.0, chance.random(prompts)
    strong = weak + chance.random(prompts) - 0.2
    order = PairOrder(scores, weak, strong)
    found = order.measures(np.ones((1, prompts)), LEVELS)
    curve = order.curve()
    assert found.auc[0] == pytest.approx(np.trapezoid(curve.quality, curve.share))
    assert (curve.quality[0], curve.quality[-1]) == pytest.approx((weak.mean(), strong.mean()))
    if strong.sum() > weak.sum():
        assert found.apgr[0] == pytest.approx(reference.apgr(scores, weak, strong))
        expected = [reference.cpt(scores, weak, strong, level) for level in LEVELS]
        assert found.cpt[0] == pytest.approx(expected)
    else:
        assert np.isnan(found.apgr[0])
        assert np.isnan(found.cpt[0]).all()


def test_rounding_is_no_gap() -> None:
    """A gap of rounding size counts as no gap, so APGR and CPT are undefined; a gap of 5e-7 counts as one."""
    weak, strong = np.array([0.1, 0.7]), np.array([0.3, 0.5])
    assert (strong - weak).sum() > 0
    for scale in (1.0, 1e6):
        found = PairOrder([1, 0], scale * weak, scale * strong).measures(np.ones((1, 2)), LEVELS)
        assert np.isnan(found.apgr[0])
        assert np.isnan(found.cpt[0]).all()
        with pytest.raises(ValueError, match="strong model is not better"):
            apgr([1, 0], scale * weak, scale * strong)
    assert apgr([1, 0], weak, strong + np.array([1e-6, 0.0])) > 1e4


@given(st.integers(0, 10_000))
def test_a_weight_is_so_many_copies(seed: int) -> None:
    """A resample is measured as if each prompt had been listed as often as its weight says."""
    chance = np.random.default_rng(seed)
    scores, weak, strong = np.round(chance.random(30), 1), chance.random(30), chance.random(30) + 0.5
    weights = chance.integers(0, 4, (3, 30))
    found = PairOrder(scores, weak, strong).measures(weights.astype(float), LEVELS)
    for row, times in enumerate(weights):
        copied, low, high = (np.repeat(values, times) for values in (scores, weak, strong))
        assert found.apgr[row] == pytest.approx(reference.apgr(copied, low, high))
        assert PairOrder(scores, weak, strong).measures(weights.astype(float), ()).apgr[row] == found.apgr[row]
        assert found.cpt[row] == pytest.approx([reference.cpt(copied, low, high, level) for level in LEVELS])


def test_equal_prompts_are_drawn_together() -> None:
    """Copies of a prompt share one weight, and each resample draws as many prompts as there are distinct ones."""
    groups = np.array([0, 1, 0, 2, 1])
    weights = np.concatenate(list(resampled(groups, 500, seed=3)))
    assert weights.shape == (500, 5)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(axis=1), 3.0)
    assert weights.mean() == pytest.approx(1.0, abs=0.1)


def test_blocks_do_not_change_what_is_drawn() -> None:
    """Resamples of many prompts come in several bounded blocks, and the same seed draws the same resamples."""
    groups = np.arange(400_000)
    blocks = list(resampled(groups, 5, seed=0))
    assert len(blocks) > 1
    assert sum(len(block) for block in blocks) == 5
    again = list(resampled(groups, 5, seed=0))
    for one, other in zip(blocks, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_interval_holds_what_is_true_as_often_as_it_says() -> None:
    """For 200 samples of 150 prompts, about 95 % of the intervals contain the population's APGR."""
    chance = np.random.default_rng(4)
    size = 150
    truth, held = _population_apgr(), 0
    for draw in range(200):
        scores, weak, strong = _drawn(chance, size)
        order = PairOrder(scores, weak, strong)
        weights = np.concatenate(list(resampled(np.arange(size), 300, seed=draw)))
        found = interval(order.measures(weights, LEVELS).apgr)
        assert found is not None
        held += found[0] <= truth <= found[1]
    assert 0.88 <= held / 200 <= 0.99


def test_an_interval_needs_a_measure_that_is_defined() -> None:
    """There is no interval if the measure is NaN on more resamples than a tail of 2.5 % holds."""
    values = np.linspace(0.0, 1.0, 100)
    assert interval(values) == pytest.approx((0.025, 0.975), abs=0.001)
    values[:2] = np.nan
    assert interval(values) is not None
    values[:10] = np.nan
    assert interval(values) is None
    assert interval(np.full(5, np.nan)) is None


def _drawn(chance: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weak = (chance.random(size) < 0.5).astype(float)
    strong = np.maximum(weak, chance.random(size) < 0.6)
    return strong - weak + chance.random(size), weak, strong


def _population_apgr() -> float:
    chance = np.random.default_rng(5)
    return reference.apgr(*_drawn(chance, 200_000))
