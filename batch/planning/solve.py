"""Solves a plan, once, from the scores of the whole input."""

from collections.abc import Sequence
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import as_score
from schemas.plans import CutoffPlanSpec, PinPlanSpec, Plan, PlanSpec, SharePlanSpec


def solve(spec: PlanSpec, models: Sequence[str], scores: NDArray[np.float32], rows: NDArray[np.int64]) -> Plan:
    """Solve the plan that the job asks for. Takes time linear in the number of rows, and copies only the scores.

    Args:
        spec: the plan in the job file. `cutoff` and `pin` need no scores; if they get some, the solved plan says what
            share of the rows to expect at each model.
        models: of the job, cheapest first.
        scores: of the rows, in any order. A row that the plan does not decide (invalid, pinned, or with a cutoff of its
            own) is left out or has a score that is not finite.
        rows: the number of each row in the whole input.
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
    """The score and number of the last of the best `count` rows. Of rows with equal scores, earlier ones come first."""
    if not len(scores):
        return None, None
    if count == 0:
        # No row has a number up to -1, so not even rows with the best score are chosen.
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
