"""RouteLLM's similarity-weighted ranking, straight from its formulas: one tightly converged fit for each prompt."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from batch.arrays import Floats


def elo(first: Sequence[str], second: Sequence[str], outcome: Floats, weight: Floats | None = None) -> dict[str, float]:
    """Ratings of greatest weighted likelihood; each battle counts twice, and a tie is one win for each model."""
    names = list(dict.fromkeys([*first, *second]))
    battles = np.arange(len(first))
    features = np.zeros((len(first), len(names)))
    features[battles, [names.index(name) for name in first]] = np.log(10)
    # If a model battles itself, this overwrites the line above.
    features[battles, [names.index(name) for name in second]] = -np.log(10)
    weights = np.ones(len(first)) if weight is None else weight / weight.max()
    features, weights = np.tile(features, (2, 1)), np.tile(weights, 2) / len(first)
    won = np.concatenate([outcome >= 0.5, outcome == 1.0]).astype(np.float64)

    def loss(strengths: Floats) -> tuple[float, Floats]:
        logits = features @ strengths
        probability = 1.0 / (1.0 + np.exp(-logits))
        return float(weights @ (np.logaddexp(0.0, logits) - won * logits)), features.T @ (weights * (probability - won))

    def curvature(strengths: Floats) -> Floats:
        probability = 1.0 / (1.0 + np.exp(-(features @ strengths)))
        return (features * (weights * probability * (1.0 - probability))[:, None]).T @ features

    best = minimize(loss, np.zeros(len(names)), jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-12})
    return {name: 400.0 * strength + 1000.0 for name, strength in zip(names, best.x, strict=True)}


def tiers(ratings: dict[str, float], count: int) -> dict[str, int]:
    """Each model's tier: tries all splits of the ratings, best first, for the least sum of the tiers' variances."""
    names = sorted(ratings, key=lambda name: -ratings[name])
    values = np.array([ratings[name] for name in names])

    def best(upto: int, groups: int) -> tuple[float, list[int]]:
        """The least sum over the first `upto` models, and the ends of all groups but the last."""
        if upto == 1:
            return 0.0, []
        if groups == 1:
            return float(np.var(values[:upto])), []
        tried = []
        for end in range(1, upto):
            cost, ends = best(end, groups - 1)
            right = float(np.var(values[end:upto])) if upto - end > 1 else 0.0
            tried.append((cost + right, [*ends, end]))
        return min(tried, key=lambda one: one[0])

    ends = best(len(names), count)[1]
    return {name: sum(i >= end for end in ends) for i, name in enumerate(names)}


def win_rate(
    first: Sequence[str], second: Sequence[str], outcome: Floats, vectors: Floats, prompt: Floats, pair: tuple[str, str]
) -> float:
    """Probability that the first of the pair beats the second, given battles of tiers, their vectors and a prompt's."""
    cosine = vectors @ prompt / (np.linalg.norm(vectors, axis=1) * np.linalg.norm(prompt))
    rated = elo(first, second, outcome, 10 * 10 ** (cosine / cosine.max()))
    strong, weak = rated[pair[0]], rated[pair[1]]
    return float(1 - 1 / (1 + 10 ** ((strong - weak) / 400)))
