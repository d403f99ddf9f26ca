"""RouteLLM's measures (arXiv 2406.18665) of a router between a weak and a strong model, over many resamples at once.

A router sends the prompts with the highest scores to the strong model. All measures come from one curve: quality
against the share of prompts that the strong model answers. The curve is exact: it has a corner at each distinct score,
where RouteLLM's own program has eleven points (`batch.measures.routellm`). Among prompts with equal scores the order is
taken as random, and each measure is its expected value over that order, which makes the curve straight between corners.

A resample is given by how often it has each prompt, so a few array operations measure a thousand resamples.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from batch.arrays import Floats, Indices

# Of the largest quality. Sums of as many prompts as are ever measured are rounded by less, and no labels differ by it.
_ROUNDING = 1e-9


def least_gap(weak: ArrayLike, strong: ArrayLike) -> float:
    """The difference that two mean qualities must exceed to count as a gap; anything smaller may be rounding alone."""
    return _ROUNDING * float(max(np.abs(np.asarray(one, dtype=np.float64)).max() for one in (weak, strong)))


def apgr(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """APGR of all prompts: one half for a random router, more for a better one.

    Arguments are those of `PairOrder`. Raises ValueError where the strong model is no better over these prompts, for
    then there is no gap to recover.
    """
    order = PairOrder(scores, weak, strong)
    found = float(order.measures(np.ones((1, len(order))), ()).apgr[0])
    if np.isnan(found):
        raise ValueError(f"the strong model is not better on these {len(order)} prompts, so no gap can be recovered")
    return found


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """Measures of one router, one row per resample.

    `apgr` and `cpt` are NaN for resamples in which the strong model is no better than the weak one.
    """

    apgr: Floats
    """Average performance gap recovered, shape (resamples,): the area under the share of the quality gap that is
    recovered, plotted against the share of strong calls. A random router has 0.5."""
    cpt: Floats
    """Call-performance threshold, shape (resamples, levels): the smallest share of strong calls, from 0 to 1, that
    recovers each level of the gap."""
    auc: Floats
    """Area under mean quality, plotted against the share of strong calls, shape (resamples,). It needs no gap."""


@dataclass(frozen=True, slots=True)
class PairCurve:
    """Mean quality against the share of strong calls: a corner for each distinct score, straight lines between."""

    share: Floats
    """Share of strong calls, from 0 to 1, shape (corners,)."""
    quality: Floats
    """Mean quality, shape (corners,)."""


class PairOrder:
    """Prompts in the order in which a router would send them to the strong model."""

    def __init__(self, scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> None:
        """Sort the prompts by score.

        Args:
            scores: the router's, shape (n,); the highest goes to the strong model first.
            weak: quality of the weak model's answer to each prompt, shape (n,): 0 and 1, or any number.
            strong: quality of the strong model's answers, shape (n,).
        """
        scored = np.asarray(scores, dtype=np.float64)
        self._weak = np.asarray(weak, dtype=np.float64)
        self._least_gap = least_gap(weak, strong)
        self._order = np.argsort(-scored, kind="stable")
        ordered = scored[self._order]
        self._gains = (np.asarray(strong, dtype=np.float64) - self._weak)[self._order]
        self._starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered)) + 1])

    def __len__(self) -> int:
        return len(self._gains)

    def measures(self, weights: Floats, levels: tuple[float, ...]) -> PairMeasures:
        """Measure the router on each resample.

        Args:
            weights: how often each prompt is in each resample, shape (resamples, n).
            levels: shares of the gap, from 0 to 1, for `PairMeasures.cpt`.
        """
        share, gained, before = self._walk(weights)
        gap = gained[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            area = (np.diff(share) * (gained[:, 1:] + gained[:, :-1])).sum(axis=1) / 2
            apgr = np.where(gap > self._least_gap, area / gap, np.nan)
            cpt = np.empty((len(gap), len(levels)))
            for column, level in enumerate(levels):
                cpt[:, column] = _crossing(share, gained, level * gap)
        cpt[~(gap > self._least_gap)] = np.nan
        return PairMeasures(apgr, cpt, before + area)

    def curve(self) -> PairCurve:
        """The curve over all prompts."""
        share, gained, before = self._walk(np.ones((1, len(self._gains))))
        return PairCurve(share[0], before[0] + gained[0])

    def _walk(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """The share of strong calls and the mean gain over the weak model at each corner, both of shape (resamples,
        corners), and the weak model's mean quality, shape (resamples,)."""
        total = weights.sum(axis=1, keepdims=True)
        before = (weights @ self._weak) / total[:, 0]
        ordered = weights[:, self._order]
        return _corners(ordered, self._starts, total), _corners(ordered * self._gains, self._starts, total), before


def _corners(values: Floats, starts: Indices, total: Floats) -> Floats:
    sums = np.cumsum(np.add.reduceat(values, starts, axis=1), axis=1) / total
    return np.concatenate([np.zeros((len(values), 1)), sums], axis=1)


def _crossing(share: Floats, gained: Floats, wanted: Floats) -> Floats:
    """The share at which each curve first reaches `wanted`, shape (resamples,); a curve may fall in places."""
    corner = np.maximum(np.argmax(gained >= wanted[:, None], axis=1), 1)[:, None]
    low, high = (np.take_along_axis(gained, at, axis=1)[:, 0] for at in (corner - 1, corner))
    left, right = (np.take_along_axis(share, at, axis=1)[:, 0] for at in (corner - 1, corner))
    return left + (wanted - low) / (high - low) * (right - left)
