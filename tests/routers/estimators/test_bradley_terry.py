"""Bradley-Terry strengths fitted to wins, and groups of similar strength."""

import numpy as np
import pytest

from batch.routers.estimators.bradley_terry import are_connected, fit_strengths, group_by_strength
from tests.routers import sw_reference


def test_two_players_by_hand() -> None:
    """Three wins to one give odds of three to one, in each tournament separately, from any start."""
    wins = np.array([[[0, 3], [1, 0]], [[0, 1], [1, 0]], [[0, 10], [90, 0]]], dtype=np.float64)
    expected = [[np.log(3), 0], [0, 0], [-np.log(9), 0]]
    for start in (None, np.array([5.0, 0.0]), np.array([-20.0, 0.0])):
        np.testing.assert_allclose(fit_strengths(wins, start), expected, atol=1e-9)


def test_the_slope_is_zero_at_the_end() -> None:
    """At the fitted strengths, each player's expected wins equal its wins: a thousand tournaments of eleven."""
    wins = np.random.default_rng(0).gamma(0.5, 10.0, (1000, 11, 11))
    wins[:, np.arange(11), np.arange(11)] = 0.0
    strengths = fit_strengths(wins)
    beats = 1 / (1 + np.exp(strengths[:, None, :] - strengths[:, :, None]))
    expected = ((wins + wins.swapaxes(1, 2)) * beats).sum(axis=2)
    np.testing.assert_allclose(expected, wins.sum(axis=2), rtol=1e-7)


def test_bad_weights_are_an_error() -> None:
    """Wins that are NaN raise an error instead of giving strengths that are NaN."""
    with pytest.raises(ArithmeticError, match="strengths were not found"):
        fit_strengths(np.array([[[0.0, np.nan], [1.0, 0.0]]]))


@pytest.mark.parametrize(("count", "groups"), [(2, 10), (3, 3), (7, 3), (9, 4), (8, 2)])
def test_groups_are_the_best_of_all_splits(count: int, groups: int) -> None:
    """Groups equal those found by trying every split."""
    for seed in range(5):
        strengths = np.sort(np.random.default_rng(seed).standard_t(2, count))[::-1]
        names = [str(i) for i in range(count)]
        expected = sw_reference.tiers(dict(zip(names, strengths.tolist(), strict=True)), groups)
        found = group_by_strength(strengths, groups).tolist()
        assert [(a == b) for a in found for b in found] == [expected[a] == expected[b] for a in names for b in names], (
            strengths
        )


def test_which_players_are_connected() -> None:
    """A chain of battles connects two players, and a lost battle connects as well as a won one."""
    wins = np.zeros((5, 5))
    wins[0, 1] = wins[2, 1] = wins[4, 3] = 1.0
    assert are_connected(wins, 0, 2)
    assert are_connected(wins, 3, 4)
    assert not are_connected(wins, 0, 4)
