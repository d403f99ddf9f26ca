"""Applies a solved plan to rows of the input, one part at a time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.plans import Plan

UNDECIDED = -1
"""Stands for the model of a row that no model was chosen for."""


def assign(
    score: NDArray[np.float32],
    row: NDArray[np.int64],
    own_cutoff: NDArray[np.float32],
    pinned_index: NDArray[np.int16],
    plan: Plan,
    models: Sequence[str],
) -> NDArray[np.int16]:
    """Choose a model for each row. The choice for a row does not depend on the other rows of the part.

    A row's pin comes first, then its own cutoff, then the plan. Scores are float32 and are compared with cutoffs that
    are rounded to float32, so a cutoff of 0.3 includes a score of 0.3. A row with neither a pin nor a finite score is
    UNDECIDED, unless the plan is `pin`, which needs no scores.

    Args:
        score: of each row; NaN if it has none.
        row: each row's number in the whole input.
        own_cutoff: the cutoff that the row asks for; NaN if it asks for none.
        pinned_index: index of the model that the row is pinned to; -1 if it is pinned to none.
        plan: as `solve` returned it.
        models: of the job, cheapest first.

    Returns:
        Indexes into `models`. Invalid rows are not recognized here: leave them out, or ignore their models.
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
        # The plan was solved over no scores at all, so there is no cutoff to be above.
        return np.zeros(len(score), dtype=bool)
    cutoff = as_score(plan.cutoff)
    above: NDArray[np.bool_] = score > cutoff
    tied: NDArray[np.bool_] = score == cutoff
    if plan.last_tied_row is not None:
        tied &= row <= plan.last_tied_row
    above |= tied
    return above


def as_score(cutoff: float) -> np.float32:
    """The cutoff as a float32, the type of scores. One that is too large becomes infinite, which no score reaches."""
    with np.errstate(over="ignore"):
        return np.float32(cutoff)
