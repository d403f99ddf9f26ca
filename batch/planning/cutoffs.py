"""The cutoff that divides given scores at a share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import as_score

# A float32 has nine digits at most.
_MOST_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Cut:
    """A cutoff, and what it does to the scores that it was found on."""

    cutoff: float
    above: int
    """Scores from the cutoff on."""
    tied: int
    """Scores that are equal where the share would end, so that no cutoff can part them; 0: it ends between two."""


def cutoff_for(strong: float, scores: NDArray[np.float32]) -> Cut:
    """Return the cutoff that comes nearest to having `strong` of these finite scores from it on.

    Args:
        strong: from 0 to 1; the count is rounded as a share plan rounds it.
        scores: shape (rows,), at least one, in any order.

    The cutoff has as few decimals as lie between the scores on either side: it is to be pasted, and to stand when
    another machine rounds scores otherwise.
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
    return Cut(_between(left, taken), above, tied)


def _between(left: float, taken: float) -> float:
    """The shortest number above `left` and not above `taken`, as float32, of which one at least is finite."""
    if np.isfinite(left) and np.isfinite(taken):
        middle = left + (taken - left) / 2
    else:
        middle = taken if np.isfinite(taken) else left
    for digits in range(_MOST_DIGITS + 1):
        step = 10.0**-digits
        for nudge in (0.0, -step, step):
            cutoff = round(middle + nudge, digits)
            if left < as_score(cutoff) <= taken:
                return cutoff + 0.0  # no minus before a zero
    return taken if np.isfinite(taken) else float(np.nextafter(np.float32(left), np.float32(np.inf)))
