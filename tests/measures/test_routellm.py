"""RouteLLM's protocol, compared with a reference that makes the same calls as its evaluation program."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.arrays import Floats
from batch.measures.pair import apgr
from batch.measures.routellm import LEVELS, protocol_curve, protocol_figures, protocol_mean
from batch.routers.random import RandomRouter


def reference(scores: Floats, weak: Floats, strong: Floats) -> dict[str, float]:
    """CPT (percent of calls), AUC and APGR as RouteLLM's program computes them, with quality in percent."""
    _, cutoffs = pd.qcut(scores, 10, retbins=True)
    last = len(cutoffs) - 1
    rows = []
    for at, cutoff in enumerate(cutoffs):
        chosen = scores >= cutoff if at != last else scores > cutoff
        answers = np.where(chosen, strong, weak)
        rows.append({"percent": chosen.sum() / len(scores) * 100, "accuracy": sum(answers) / len(answers) * 100})
    frame = pd.DataFrame(rows).sort_values(by=["percent"])
    low, high = weak.mean() * 100, strong.mean() * 100
    figures = {
        f"cpt{level:.0%}": np.interp(level * (high - low) + low, frame["accuracy"], frame["percent"])
        for level in LEVELS
    }
    share = frame["percent"] / 100
    figures["auc"] = np.trapezoid(frame["accuracy"], share)
    areas = [np.trapezoid(np.full(len(frame), level), share) for level in (low, high)]
    figures["apgr"] = (figures["auc"] - areas[0]) / (areas[1] - areas[0])
    return {name: float(value) for name, value in figures.items()}


def ours(scores: Floats, weak: Floats, strong: Floats) -> dict[str, float]:
    found = protocol_figures(protocol_curve(scores, weak, strong), weak.mean(), strong.mean())
    crossings = {f"cpt{level:.0%}": 100 * share for level, share in zip(LEVELS, found.cpt, strict=True)}
    return {**crossings, "auc": 100 * found.auc, "apgr": found.apgr}


@given(st.integers(0, 10_000), st.integers(11, 400), st.sampled_from([0, 1, 2, 3]))
def test_it_agrees_with_the_reference(seed: int, prompts: int, digits: int) -> None:
    """APGR, CPT and AUC agree within 1e-6, also with ties; if `pandas.qcut` raises ValueError, so do we.

    Scores rounded to fewer digits hold more ties; 0 digits stands for unrounded scores.
    """
    chance = np.random.default_rng(seed)
    weak = (chance.random(prompts) < 0.6).astype(float)
    strong = (chance.random(prompts) < 0.8).astype(float)
    scores = np.round(chance.random(prompts), digits) if digits else chance.random(prompts)
    if weak.mean() == strong.mean():
        return
    try:
        expected = reference(scores, weak, strong)
    except ValueError:
        with pytest.raises(ValueError, match="too many equal scores"):
            protocol_curve(scores, weak, strong)
        return
    assert ours(scores, weak, strong) == pytest.approx(expected, abs=1e-6)


def test_cutoffs_that_are_scores_fall_as_theirs_do() -> None:
    """If every decile is itself a score, one wrong rounding would send a prompt to the other model; none does."""
    for prompts in (11, 21, 101, 1001):
        scores = np.arange(prompts) / 7.0
        weak, strong = np.zeros(prompts), np.arange(prompts) % 3 / 2.0
        assert ours(scores, weak, strong) == pytest.approx(reference(scores, weak, strong), abs=1e-9)


def test_the_random_baseline_comes_out_at_one_half() -> None:
    """The mean of ten random routers, averaged at each share as RouteLLM averages it, has an APGR of 0.50."""
    chance = np.random.default_rng(0)
    prompts = [f"question {i}" for i in range(14_000)]
    weak, strong = (chance.random(14_000) < 0.68).astype(float), (chance.random(14_000) < 0.81).astype(float)
    curves = [protocol_curve(RandomRouter("strong", seed).score(prompts)[:, 0], weak, strong) for seed in range(10)]
    found = protocol_figures(protocol_mean(curves), weak.mean(), strong.mean())
    assert found.apgr == pytest.approx(0.5, abs=0.01)
    assert found.cpt == pytest.approx(LEVELS, abs=0.02)


def test_the_mean_of_curves_is_taken_share_by_share() -> None:
    """Curves with the same shares are averaged point by point, and the mean of a curve with itself is that curve."""
    chance = np.random.default_rng(1)
    weak, strong = chance.random(50), chance.random(50) + 0.5
    one, other = (protocol_curve(chance.random(50), weak, strong) for _ in range(2))
    mean = protocol_mean([one, other])
    np.testing.assert_allclose(mean.share, one.share)
    np.testing.assert_allclose(mean.quality, (one.quality + other.quality) / 2)
    np.testing.assert_allclose(protocol_mean([one, one]).quality, one.quality)


def test_it_is_near_the_exact_measure() -> None:
    """Over 20,000 prompts, the protocol's eleven points give nearly the APGR of the exact curve."""
    chance = np.random.default_rng(2)
    weak = chance.random(20_000)
    strong = weak + chance.random(20_000)
    scores = strong - weak + chance.normal(0, 0.3, 20_000)
    found = protocol_figures(protocol_curve(scores, weak, strong), weak.mean(), strong.mean())
    assert found.apgr == pytest.approx(apgr(scores, weak, strong), abs=0.005)


def test_no_gap_is_refused() -> None:
    """If both models are equally good, there is no gap, and `protocol_figures` raises ValueError."""
    scores, quality = np.arange(20.0), np.arange(20) % 2 / 1.0
    with pytest.raises(ValueError, match="equally good"):
        protocol_figures(protocol_curve(scores, quality, quality), 0.5, 0.5)
