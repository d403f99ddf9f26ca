"""Quality against cost: the sweep over `lambda`, the hull of its operating points, and AIQ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.arrays import Floats
from batch.measures.cost_quality import POINTS, aiq, hull, sweep, sweep_of_pair


def by_grid(predicted: Floats, prices: Floats, quality: Floats, steps: Floats) -> tuple[Floats, Floats]:
    """Mean cost and quality for each `lambda` in `steps`, choosing by prediction minus `lambda` times price."""
    chosen = np.stack([(predicted - slope * prices).argmax(axis=1) for slope in steps])
    everyone = np.arange(len(predicted))
    return prices[chosen].mean(axis=1), quality[everyone, chosen].mean(axis=1)


@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(1, 80))
def test_a_grid_of_lambda_finds_every_point_of_the_sweep(seed: int, models: int, prompts: int) -> None:
    """Every operating point of the sweep is also found by trying each `lambda` of a fine grid."""
    chance = np.random.default_rng(seed)
    predicted, quality = chance.random((prompts, models)), chance.random((prompts, models))
    prices = chance.permutation(np.arange(1, models + 1)).astype(float)
    swept = sweep(predicted, prices)
    cost, reached = swept.points(quality, np.broadcast_to(prices, quality.shape), np.ones((1, prompts)))
    assert cost.shape[1] <= POINTS + 1
    assert (np.diff(cost[0]) > 0).all()
    # The grid holds a value just below each slope at which a prompt changes its model.
    pairs = [(a, b) for a in range(models) for b in range(models) if prices[a] < prices[b]]
    slopes = np.concatenate([(predicted[:, b] - predicted[:, a]) / (prices[b] - prices[a]) for a, b in pairs])
    grid = np.concatenate([[1e9], np.sort(slopes[slopes > 0]) - 1e-9, [0.0]])
    by_hand = by_grid(predicted, prices, quality, grid)
    for point in zip(cost[0], reached[0], strict=True):
        assert np.abs(np.array(by_hand) - np.array(point)[:, None]).max(axis=0).min() < 1e-9


def test_resamples_are_walked_as_if_written_out() -> None:
    """Giving a prompt the weight n has the same effect as listing it n times, with its own costs."""
    chance = np.random.default_rng(0)
    predicted, quality, cost = (chance.random((40, 3)) for _ in range(3))
    prices = np.array([1.0, 2.0, 5.0])
    weights = chance.integers(0, 3, (2, 40))
    found = sweep(predicted, prices).points(quality, cost, weights.astype(float))
    for row, times in enumerate(weights):
        copy = np.repeat(np.arange(40), times)
        alone = sweep(predicted[copy], prices).points(quality[copy], cost[copy], np.ones((1, len(copy))))
        for whole, part in zip(found, alone, strict=True):
            # A prompt with weight 0 adds moves that change neither cost nor quality, so the paths hold the same points.
            assert set(np.round(part[0], 9)) <= set(np.round(whole[row], 9)) | {round(float(part[0, -1]), 9)}
            assert whole[row, -1] == pytest.approx(part[0, -1])


def test_a_pair_router_goes_from_the_first_model_to_the_last() -> None:
    """One column of scores moves prompts from the first model to the last, best score first, even below zero."""
    quality = np.array([[0.0, 9.0, 1.0], [0.5, 9.0, 0.5], [1.0, 9.0, 0.0]])
    swept = sweep_of_pair(np.array([-1.0, -3.0, -2.0]), 3, np.array([1.0, 2.0, 3.0]))
    cost, reached = swept.points(quality, np.tile(np.array([1.0, 2.0, 3.0]), (3, 1)), np.ones((1, 3)))
    np.testing.assert_allclose(cost[0], [1, 5 / 3, 7 / 3, 3])
    np.testing.assert_allclose(reached[0], [0.5, 2.5 / 3, 1.5 / 3, 0.5])


def test_aiq_by_hand() -> None:
    """AIQ equals a value worked out on paper: the hull skips the point beneath it and is level after the best."""
    cost, quality = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.2, 0.3, 0.8, 0.7])
    np.testing.assert_allclose(np.stack(hull(cost, quality)), np.array([[1.0, 3.0], [0.2, 0.8]]))
    assert aiq(cost, quality, 1.0, 5.0) == pytest.approx((0.5 * 2 + 0.8 * 2) / 4)
    with pytest.raises(ValueError, match="no range of cost"):
        aiq(cost, quality, 1.0, 1.0)


@given(st.integers(0, 10_000), st.integers(1, 30))
def test_the_hull_is_concave_rising_and_above_everything(seed: int, points: int) -> None:
    """The hull's corners are among the points, its slopes are positive and fall, and no point lies above it."""
    chance = np.random.default_rng(seed)
    cost, quality = np.round(chance.random(points), 1), np.round(chance.random(points), 1)
    xs, ys = hull(cost, quality)
    assert set(zip(xs, ys, strict=True)) <= set(zip(cost, quality, strict=True))
    slopes = np.diff(ys) / np.diff(xs)
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 1e-12).all()
    assert (quality <= np.interp(cost, xs, ys) + 1e-12).all()


def test_knowing_the_answers_is_worth_more_than_mixing_models() -> None:
    """The oracle's AIQ exceeds that of the best mix of single models; a router with random scores does not."""
    chance = np.random.default_rng(1)
    quality = (chance.random((2000, 3)) < [0.5, 0.65, 0.8]).astype(float)
    prices = np.array([1.0, 3.0, 9.0])
    costs = np.broadcast_to(prices, quality.shape)
    everyone = np.ones((1, 2000))

    def worth(predicted: Floats) -> float:
        cost, reached = sweep(predicted, prices).points(quality, costs, everyone)
        return aiq(cost[0], reached[0], 1.0, 9.0)

    mixed = aiq(prices, quality.mean(axis=0), 1.0, 9.0)
    assert worth(quality) > mixed + 0.1
    assert worth(chance.random((2000, 3))) < mixed + 0.01
