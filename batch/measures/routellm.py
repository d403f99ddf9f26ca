"""RouteLLM's own way of measuring, for comparison with its published figures; the exact measures are in `pair`.

From its paper (arXiv 2406.18665) and its evaluation program: the cutoffs are the deciles of the scores, quality is
measured at each of them, areas are trapezoids between these eleven points, and CPT is read off by interpolation, which
assumes that the points rise. If they do not, a difference in the last bit may move CPT by a third of all calls. So this
file computes in the order and the unit of RouteLLM's program: percent for right or wrong answers, grades as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from batch.arrays import Floats
from batch.measures.pair import least_gap

LEVELS = (0.2, 0.5, 0.8)
BINS = 10


@dataclass(frozen=True, slots=True)
class ProtocolCurve:
    """Points of one router."""

    share: Floats
    """Share of strong calls, from 0 to 1, rising."""
    quality: Floats
    """Mean quality there."""


@dataclass(frozen=True, slots=True)
class ProtocolFigures:
    """The measures that RouteLLM's program prints."""

    apgr: float
    """Average performance gap recovered."""
    cpt: tuple[float, ...]
    """Share of strong calls that recovers each of LEVELS of the gap."""
    auc: float
    """Area under quality against share."""


def protocol_curve(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike, bins: int = BINS) -> ProtocolCurve:
    """Mean quality at `bins + 1` cutoffs that cut the prompts into bins of one size.

    A prompt whose score is at least the cutoff goes to the strong model; at the last cutoff, the highest score, no
    prompt does. `weak` and `strong` are the quality of each model's answer to each prompt, shape (n,).
    Raises ValueError if so many scores are equal that two cutoffs coincide, as `pandas.qcut` does.
    """
    scored = np.asarray(scores, dtype=np.float64)
    low, high = np.asarray(weak, dtype=np.float64), np.asarray(strong, dtype=np.float64)
    cutoffs = np.percentile(scored, 100.0 * _quantiles(bins))
    if len(np.unique(cutoffs)) <= bins:
        raise ValueError(f"too many equal scores to cut {len(scored)} prompts into {bins} bins")
    chosen = [scored >= cutoff for cutoff in cutoffs[:-1]] + [scored > cutoffs[-1]]
    return ProtocolCurve(
        share=np.array([one.mean() for one in chosen])[::-1],
        quality=np.array([np.where(one, high, low).mean() for one in chosen])[::-1],
    )


def protocol_mean(curves: Sequence[ProtocolCurve]) -> ProtocolCurve:
    """The mean quality of several curves at each share that any of them has: how a random router is averaged."""
    share, place = np.unique(np.concatenate([curve.share for curve in curves]), return_inverse=True)
    quality = np.bincount(place, weights=np.concatenate([curve.quality for curve in curves])) / np.bincount(place)
    return ProtocolCurve(share, quality)


def protocol_figures(curve: ProtocolCurve, weak: float, strong: float, *, unit: float = 100.0) -> ProtocolFigures:
    """The three measures of a curve, `weak` and `strong` being the mean quality of each model.

    Args:
        unit: what quality is multiplied by before it is interpolated; 1 for grades.

    Raises ValueError where the models are equally good, for then there is no gap.
    """
    gap = strong - weak
    if abs(gap) <= least_gap(weak, strong):
        raise ValueError("the two models are equally good, so there is no gap")
    auc = float(np.trapezoid(curve.quality, curve.share))
    width = float(curve.share[-1] - curve.share[0])
    low, high = weak * unit, strong * unit
    # One call each: numpy starts looking where it found the one before, which matters where points do not rise.
    crossings = [np.interp(level * (high - low) + low, curve.quality * unit, curve.share) for level in LEVELS]
    return ProtocolFigures((auc - weak * width) / (gap * width), tuple(float(one) for one in crossings), auc)


def _quantiles(bins: int) -> Floats:
    """`0, 1/bins, ..., 1`, those that have no exact float rounded up, so that ties of a cutoff fall as in pandas."""
    steps = np.linspace(0.0, 1.0, bins + 1)
    return np.where(bins * steps != np.arange(bins + 1), np.nextafter(steps, 1.0), steps)
