"""Applies a solved plan to any rows of the input, a part at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.plans import Plan

UNDECIDED = -1


def assign(
    score: NDArray[np.float32],
    row: NDArray[np.int64],
    own_cutoff: NDArray[np.float32],
    pinned_index: NDArray[np.int16],
    plan: Plan,
    models: Sequence[str],
) -> NDArray[np.int16]:
    """Return each row's model as an index into `models`, cheapest first. Pure: how rows are cut in parts is nothing.

    A pin (`pinned_index` from 0) wins, then the row's own cutoff (where finite), then the plan. Scores are float32,
    and so is what they are compared with: a cutoff of 0.3 takes in a score of 0.3. A row with neither pin nor a
    finite score is UNDECIDED, unless the plan is `pin`, which asks for no score; drop invalid rows beforehand.
    """
    names = list(models)
    strongest, weakest = names.index(plan.strongest), names.index(plan.weakest)
    scored = np.isfinite(score)
    if plan.strategy == "pin":
        chosen = np.full(len(score), strongest, dtype=np.int16)
    else:
        chosen = np.where(_above(score, row, plan), strongest, weakest).astype(np.int16)
        chosen[~scored] = UNDECIDED
    own = scored & np.isfinite(own_cutoff)
    chosen[own] = np.where(score[own] >= own_cutoff[own], len(names) - 1, 0)
    pinned = pinned_index >= 0
    chosen[pinned] = pinned_index[pinned]
    return chosen


def _above(score: NDArray[np.float32], row: NDArray[np.int64], plan: Plan) -> NDArray[np.bool_]:
    if plan.cutoff is None:
        # Solved over no scores at all: nothing can be said to be above.
        return np.zeros(len(score), dtype=bool)
    cutoff = as_score(plan.cutoff)
    above: NDArray[np.bool_] = score > cutoff
    tied: NDArray[np.bool_] = score == cutoff
    if plan.last_tied_row is not None:
        tied &= row <= plan.last_tied_row
    above |= tied
    return above


def as_score(cutoff: float) -> np.float32:
    """The cutoff as scores are stored; one too large for that becomes infinite, which nothing reaches."""
    with np.errstate(over="ignore"):
        return np.float32(cutoff)
