"""Quality against cost, for any number of models: operating points, their hull, and RouterBench's AIQ.

A router that predicts every model's quality sends a prompt to the model with the highest
`prediction - lambda * price`. Each `lambda` gives an operating point: a mean cost and a mean quality. As `lambda` falls
from infinity to 0, each prompt moves from the cheapest model to dearer ones, along the upper hull of its predictions
over price. The sweep below lists all these moves in order, so it is exact and needs no grid of `lambda`.
"""

from dataclasses import dataclass

import numpy as np

from batch.arrays import Floats, Indices

# RouterBench has a few dozen; between so many the hull no longer changes in the third digit.
POINTS = 100


@dataclass(frozen=True, slots=True)
class Sweep:
    """The moves of prompts from a model to a dearer one, in the order in which `lambda` causes them."""

    start: Indices
    """Each prompt's first model, shape (n,)."""
    prompt: Indices
    """The prompt of each move, shape (steps,)."""
    source: Indices
    """Model before it."""
    target: Indices
    """Model after it."""
    cuts: Indices
    """First move of each stretch between two operating points, at most POINTS; moves of equal slope stay together."""

    def points(self, quality: Floats, cost: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Mean cost and mean quality at each operating point, each of shape (resamples, stretches + 1).

        Args:
            quality: of each model's answer to each prompt, shape (n, models).
            cost: of the same answers, any unit.
            weights: how often each prompt is in each resample, shape (resamples, n).
        """
        total = weights.sum(axis=1, keepdims=True)
        return self._walk(cost, weights, total), self._walk(quality, weights, total)

    def _walk(self, values: Floats, weights: Floats, total: Floats) -> Floats:
        first = weights @ np.take_along_axis(values, self.start[:, None], axis=1) / total
        if not len(self.prompt):
            return first
        change = values[self.prompt, self.target] - values[self.prompt, self.source]
        steps = np.add.reduceat(weights[:, self.prompt] * change, self.cuts, axis=1)
        return np.concatenate([first, first + np.cumsum(steps, axis=1) / total], axis=1)


def sweep(predicted: Floats, prices: Floats) -> Sweep:
    """The sweep of a router.

    Args:
        predicted: its prediction of each model's quality, shape (n, models); -inf where it never chooses a model.
        prices: what an answer of each model costs on average, shape (models,).
    """
    known = np.isfinite(predicted)
    asked = np.where(known, prices, np.inf)
    cheapest = np.where(asked == asked.min(axis=1, keepdims=True), predicted, -np.inf)
    at = cheapest.argmax(axis=1)
    start, everyone = at.copy(), np.arange(len(predicted))
    steps: list[tuple[Floats, Indices, Indices, Indices]] = []
    while True:
        dearer = prices[None, :] - prices[at][:, None]
        rise = predicted - predicted[everyone, at][:, None]
        slopes = np.where(known & (dearer > 0), rise / np.where(dearer > 0, dearer, 1.0), -np.inf)
        best = slopes.argmax(axis=1)
        slope = slopes[everyone, best]
        climbs = np.flatnonzero(slope > 0)
        if not len(climbs):
            break
        steps.append((slope[climbs], climbs, at[climbs], best[climbs]))
        at[climbs] = best[climbs]
    if not steps:
        nothing = np.empty(0, dtype=np.intp)
        return Sweep(start, nothing, nothing, nothing, nothing)
    slope, prompt, source, target = (np.concatenate(part) for part in zip(*steps, strict=True))
    order = np.argsort(-slope, kind="stable")
    return Sweep(start, prompt[order], source[order], target[order], _cuts(slope[order]))


def sweep_of_pair(scores: Floats, models: int, prices: Floats) -> Sweep:
    """The sweep of a router that knows two models, the first and the last, by one score of shape (n,)."""
    predicted = np.full((len(scores), models), -np.inf)
    predicted[:, 0] = 0.0
    # Only the order of these scores has a meaning. Each is made positive, so that each prompt moves at some `lambda`.
    predicted[:, -1] = scores - scores.min() + 1.0
    return sweep(predicted, prices)


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """Corners of the non-decreasing concave hull of points.

    A mix of two routers reaches every point on the line between theirs, and a dearer point with less quality is of no
    use: so the hull is what these operating points can reach.

    Costs rise strictly and quality rises strictly from corner to corner.
    """
    corners: list[tuple[float, float]] = []
    for at in np.lexsort((-quality, cost)):
        x, y = float(cost[at]), float(quality[at])
        if corners and y <= corners[-1][1]:
            continue
        if corners and x <= corners[-1][0]:
            corners.pop()
        while len(corners) > 1 and _below(corners[-2], corners[-1], (x, y)):
            corners.pop()
        corners.append((x, y))
    xs, ys = np.array(corners).T
    return xs, ys


def aiq(cost: Floats, quality: Floats, low: float, high: float) -> float:
    """Average improvement in quality of operating points, as RouterBench has it (arXiv 2403.12031, section 3).

    The area under the non-decreasing hull of quality against cost, from cost `low` to `high`, divided by their
    distance: a mean quality, in quality's own unit. Beyond its dearest point a hull is level.
    Raises ValueError where there is nothing between `low` and `high`.
    """
    if not high > low:
        raise ValueError(f"no range of cost between {low} and {high}")
    xs, ys = hull(cost, quality)
    at = np.concatenate([[low], xs[(xs > low) & (xs < high)], [high]])
    return float(np.trapezoid(np.interp(at, xs, ys), at) / (high - low))


def _below(left: tuple[float, float], middle: tuple[float, float], right: tuple[float, float]) -> bool:
    """Is `middle` on or under the line from `left` to `right`?"""
    across, up = right[0] - left[0], right[1] - left[1]
    return (middle[1] - left[1]) * across <= up * (middle[0] - left[0])


def _cuts(slopes: Floats) -> Indices:
    """Where to cut moves, sorted by falling slope, into at most POINTS stretches of about equal length."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(slopes)) + 1])
    wanted = np.linspace(0, len(slopes), POINTS + 1)[:-1]
    return np.unique(starts[np.minimum(np.searchsorted(starts, wanted), len(starts) - 1)])
