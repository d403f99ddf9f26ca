"""Finds the cutoff that sends a given share of rows to the strongest model."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import as_score

# Nine digits tell any two float32 numbers apart.
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class CutoffChoice:
    """A cutoff, and how it divides the scores that it was found for."""

    cutoff: float
    above: int
    """How many scores are at or above the cutoff."""
    tied: int
    """How many equal scores lie where the share would end, so that no cutoff divides them; 0 if it ends between two."""


def cutoff_for(strong: float, scores: NDArray[np.float32]) -> CutoffChoice:
    """Find the cutoff for which the share of scores at or above it is nearest to `strong`.

    The cutoff has as few decimals as fit between the scores on either side of it: users paste it into job files, and
    it should divide the rows in the same way on a machine that rounds scores differently.

    Args:
        strong: the share, from 0 to 1; the number of rows is rounded as a share plan rounds it.
        scores: finite, shape (rows,), at least one, in any order.
    """
    wanted = round(strong * len(scores))
    above, tied = wanted, 0
    if wanted:
        end = np.partition(scores, len(scores) - wanted)[len(scores) - wanted]
        better, as_good = int(np.count_nonzero(scores > end)), int(np.count_nonzero(scores >= end))
        if as_good > wanted:
            above, tied = (better if wanted - better < as_good - wanted else as_good), as_good - better
    ordered = np.sort(scores)[::-1]
    taken = float(ordered[above - 1]) if above else np.inf
    left = float(ordered[above]) if above < len(ordered) else -np.inf
    return CutoffChoice(_between(left, taken), above, tied)


def _between(left: float, taken: float) -> float:
    """The shortest number that, as a float32, is above `left` and at most `taken`. One of these must be finite."""
    if np.isfinite(left) and np.isfinite(taken):
        middle = left + (taken - left) / 2
    else:
        middle = taken if np.isfinite(taken) else left
    for digits in range(_MOST_DIGITS + 1):
        step = 10.0**-digits
        for nudge in (0.0, -step, step):
            cutoff = round(middle + nudge, digits)
            if left < as_score(cutoff) <= taken:
                return cutoff + 0.0  # turns -0.0 into 0.0
    return taken if np.isfinite(taken) else float(np.nextafter(np.float32(left), np.float32(np.inf)))
