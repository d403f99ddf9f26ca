"""Solves a plan: once, over the scores of the whole input."""

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import as_score
from schemas.plans import CutoffPlanSpec, PinPlanSpec, Plan, PlanSpec, SharePlanSpec


def solve(spec: PlanSpec, models: Sequence[str], scores: NDArray[np.float32], rows: NDArray[np.int64]) -> Plan:
    """Return the plan for rows numbered `rows` that score `scores`, in any order.

    `models` are the job's, cheapest first. A row that the plan does not decide (invalid, pinned, or with a cutoff
    of its own) has a score that is not finite, or is left out. `cutoff` and `pin` need no scores; given them, they
    say what share to expect. Takes time linear in the number of rows and no copy but of the scores.
    """
    decided = np.isfinite(scores)
    scores, rows = scores[decided], rows[decided]
    match spec:
        case CutoffPlanSpec():
            strong = int(np.count_nonzero(scores >= as_score(spec.cutoff)))
            return _between_ends(spec, models, strong, len(scores), spec.cutoff, None)
        case SharePlanSpec():
            strong = round(spec.strong * len(scores))
            cutoff, last_tied_row = _top(strong, scores, rows)
            return _between_ends(spec, models, strong, len(scores), cutoff, last_tied_row)
        case PinPlanSpec():
            share = {model: float(model == spec.model) for model in models}
            return Plan(strategy="pin", weakest=spec.model, strongest=spec.model, cutoff=None, expected_share=share)
        case _:
            assert_never(spec)


def _top(count: int, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[float | None, int | None]:
    """The score and the row number that end the best `count` rows, earlier rows first among equal scores."""
    if not len(scores):
        return None, None
    if count == 0:
        # No row is numbered -1, so not even the best score is good enough.
        return float(scores.max()), -1
    place = len(scores) - count
    cutoff = np.partition(scores, place)[place]
    wanted = count - int(np.count_nonzero(scores > cutoff))
    tied = rows[scores == cutoff]
    return float(cutoff), int(np.partition(tied, wanted - 1)[wanted - 1])


def _between_ends(
    spec: CutoffPlanSpec | SharePlanSpec,
    models: Sequence[str],
    strong: int,
    total: int,
    cutoff: float | None,
    last_tied_row: int | None,
) -> Plan:
    """The plan that divides `total` rows between the cheapest and the strongest of `models`."""
    share = dict.fromkeys(models, 0.0)
    if total:
        share[models[0]] += (total - strong) / total
        share[models[-1]] += strong / total
    return Plan(
        strategy=spec.strategy,
        weakest=models[0],
        strongest=models[-1],
        cutoff=cutoff,
        last_tied_row=last_tied_row,
        expected_share=share if total else None,
    )
