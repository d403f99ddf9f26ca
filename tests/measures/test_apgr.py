"""APGR as `batch.measures.pair` computes it, and the reference implementation that other tests compare it with."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.measures.pair import apgr
from tests.measures.reference import cpt, recovery_curve

Verdicts = tuple[NDArray[np.float64], NDArray[np.float64]]


@st.composite
def verdicts(draw: st.DrawFn) -> Verdicts:
    """Draw the quality of two models' answers to some prompts, with the strong model better in total."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=40))
    weak, strong = np.array(pairs, dtype=np.float64).T
    assume(strong.sum() > weak.sum())
    return weak, strong


@given(verdicts())
def test_equal_scores_are_a_random_router(judged: Verdicts) -> None:
    """A router with equal scores recovers the gap in proportion: APGR is one half, and CPT equals its level."""
    weak, strong = judged
    scores = np.zeros(len(weak))
    assert apgr(scores, weak, strong) == pytest.approx(0.5)
    assert cpt(scores, weak, strong, 0.8) == pytest.approx(0.8)


@given(verdicts(), st.lists(st.floats(0, 1), min_size=40, max_size=40))
def test_no_router_beats_the_oracle(judged: Verdicts, drawn: list[float]) -> None:
    """Sorting prompts by the true gain gives the highest APGR, the reverse order the lowest; the two add up to 1."""
    weak, strong = judged
    scores = drawn[: len(weak)]
    best, worst = apgr(strong - weak, weak, strong), apgr(weak - strong, weak, strong)
    assert worst - 1e-9 <= apgr(scores, weak, strong) <= best + 1e-9
    assert best + worst == pytest.approx(1.0)


@given(verdicts(), st.lists(st.integers(0, 3), min_size=40, max_size=40))
def test_ties_are_the_mean_over_their_orders(judged: Verdicts, drawn: list[int]) -> None:
    """With tied scores, APGR is the mean of the APGRs over all orders of the tied prompts."""
    weak, strong = judged
    scores = np.array(drawn[: len(weak)], dtype=np.float64)
    # An order and its reverse take every tied pair both ways, so their mean equals the mean over all orders.
    nudge = np.linspace(0.0, 0.5, len(weak))
    both = [apgr(scores + nudge, weak, strong), apgr(scores - nudge, weak, strong)]
    assert apgr(scores, weak, strong) == pytest.approx(np.mean(both))


@given(verdicts())
def test_only_the_order_counts(judged: Verdicts) -> None:
    """A strictly increasing function of the scores leaves APGR unchanged."""
    weak, strong = judged
    scores = np.arange(len(weak)) % 5 / 7.0
    assert apgr(np.exp(3 * scores) - 9, weak, strong) == apgr(scores, weak, strong)


def test_by_hand() -> None:
    """The curve, APGR and CPT of four prompts equal values worked out on paper."""
    weak, strong = [0, 1, 0, 1], [1, 1, 1, 0]
    share, recovered = recovery_curve([0.9, 0.8, 0.7, 0.1], weak, strong)
    np.testing.assert_allclose(share, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(recovered, [0, 1, 1, 2, 1])
    assert apgr([0.9, 0.8, 0.7, 0.1], weak, strong) == pytest.approx((0.5 + 1 + 1.5 + 1.5) / 4)
    assert cpt([0.9, 0.8, 0.7, 0.1], weak, strong, 0.5) == pytest.approx(0.125)
    assert cpt([0.9, 0.8, 0.7, 0.1], weak, strong, 0.0) == 0.0


def test_random_scores_are_worth_one_half() -> None:
    """Over 50,000 prompts, random scores have an APGR near one half."""
    chance = np.random.default_rng(0)
    weak, strong = chance.random(50_000) < 0.6, chance.random(50_000) < 0.8
    assert apgr(chance.random(50_000), weak, strong) == pytest.approx(0.5, abs=0.02)


def test_no_gap_to_recover() -> None:
    """If the strong model is no better, `apgr` raises ValueError with that reason."""
    with pytest.raises(ValueError, match="strong model is not better"):
        apgr([0.1, 0.2], [1, 0], [0, 1])
