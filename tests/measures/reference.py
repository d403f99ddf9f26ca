"""RouteLLM's measures (arXiv 2406.18665), written straight from their definitions to check `batch.measures.pair`.

`weak` and `strong` are the quality of each model's answer to each prompt: 0 and 1, or any number.
Prompts with equal scores are taken in random order, and each function returns the expected value over that order.
"""

import numpy as np
from numpy.typing import ArrayLike

from batch.arrays import Floats
from batch.measures.pair import least_gap


def recovery_curve(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> tuple[Floats, Floats]:
    """Return (share of strong calls, share of the quality gap recovered), both from 0 to 1, as corners.

    The curve is straight between its corners: one corner per distinct score, highest first, after (0, 0).
    Raises ValueError where the strong model is no better over these prompts, for then there is no gap.
    """
    gains = np.asarray(strong, dtype=np.float64) - np.asarray(weak, dtype=np.float64)
    gap = gains.sum()
    if not gap / len(gains) > least_gap(weak, strong):
        raise ValueError(f"the strong model is not better on these {len(gains)} prompts, so no gap can be recovered")
    _, rank = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    share = np.cumsum(np.bincount(rank)) / len(gains)
    recovered = np.cumsum(np.bincount(rank, weights=gains)) / gap
    recovered[-1] = 1.0  # exactly; the sum may be off by rounding
    return np.concatenate([[0.0], share]), np.concatenate([[0.0], recovered])


def apgr(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """Area under the recovery curve: one half for a random router, more for a better one."""
    share, recovered = recovery_curve(scores, weak, strong)
    return float(np.trapezoid(recovered, share))


def cpt(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike, level: float) -> float:
    """Return the smallest share of strong calls that recovers `level` of the gap; lower is better.

    The curve need not rise everywhere, so this is its first crossing. `level` is in [0, 1].
    """
    share, recovered = recovery_curve(scores, weak, strong)
    corner = int(np.argmax(recovered >= level))
    if corner == 0:
        return 0.0
    rise = recovered[corner] - recovered[corner - 1]
    part = (level - recovered[corner - 1]) / rise
    return float(share[corner - 1] + part * (share[corner] - share[corner - 1]))
