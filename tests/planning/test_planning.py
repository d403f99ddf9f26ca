"""`solve` computes plans from scores, and `assign` applies them to rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.planning.assign import UNDECIDED, assign
from batch.planning.solve import solve
from schemas.plans import CutoffPlanSpec, PinPlanSpec, Plan, PlanSpec, SharePlanSpec

MODELS = ("small", "middle", "large")
NONE = np.float32(np.nan)

# A few values, so that ties are frequent; both zeros, which are equal; neighbours in float32; rows without a score.
TIED = st.sampled_from([0.0, -0.0, 0.1, 0.10000001, 0.5, -1.0, float("nan"), float("inf")])
SCORES = st.lists(TIED | st.floats(-1, 1, width=32), max_size=80).map(lambda s: np.array(s, dtype=np.float32))


def apply(plan: Plan, scores: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int16]:
    nothing = np.full(len(scores), np.nan, dtype=np.float32)
    return assign(scores, rows, nothing, np.full(len(scores), -1, dtype=np.int16), plan, MODELS)


def stored(plan: Plan) -> Plan:
    """The plan after it was written to `plan.json` and read again."""
    return Plan.model_validate_json(plan.model_dump_json())


@given(SCORES, st.floats(0, 1), st.data())
def test_a_share_is_exact(scores: NDArray[np.float32], strong: float, data: st.DataObject) -> None:
    """Exactly round(strong * n) rows go to the strongest model: highest score first, ties by row, however cut."""
    numbers = st.lists(st.integers(0, 10**12), min_size=len(scores), max_size=len(scores), unique=True)
    rows = np.array(data.draw(numbers), dtype=np.int64)
    plan = stored(solve(SharePlanSpec(strategy="share", strong=strong), MODELS, scores, rows))
    cut = data.draw(st.integers(0, len(scores)))
    chosen = np.concatenate([apply(plan, scores[part], rows[part]) for part in (slice(cut), slice(cut, None))])

    decided = np.isfinite(scores)
    count = round(strong * int(decided.sum()))
    order = sorted(np.flatnonzero(decided), key=lambda i: (-scores[i], rows[i]))
    expected = np.where(decided, 0, UNDECIDED)
    expected[order[:count]] = len(MODELS) - 1
    np.testing.assert_array_equal(chosen, expected)
    if decided.any():
        assert plan.expected_share is not None
        assert plan.expected_share["large"] == pytest.approx(count / decided.sum())
        assert sum(plan.expected_share.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("strong", [0.0, 0.25, 0.5, 1.0])
def test_equal_scores_are_divided_by_row(strong: float) -> None:
    """If all rows have the same score, the first rows of the input go to the strongest model."""
    rows = np.arange(8, dtype=np.int64)[::-1].copy()
    scores = np.full(8, 0.3, dtype=np.float32)
    plan = solve(SharePlanSpec(strategy="share", strong=strong), MODELS, scores, rows)
    np.testing.assert_array_equal(apply(plan, scores, rows) == 2, rows < strong * 8)


def test_a_share_of_nothing() -> None:
    """If no row has a score, the plan can still be stored and applied to no rows."""
    empty = np.array([], dtype=np.float32)
    plan = stored(solve(SharePlanSpec(strategy="share", strong=0.5), MODELS, empty, empty.astype(np.int64)))
    assert plan.cutoff is None
    assert plan.expected_share is None
    assert apply(plan, empty, empty.astype(np.int64)).dtype == np.int16


@given(SCORES, st.floats(-1, 1))
def test_a_cutoff_takes_in_its_own_score(scores: NDArray[np.float32], cutoff: float) -> None:
    """Rows that score at least the cutoff, rounded to float32, go to the strongest model, others to the cheapest."""
    rows = np.arange(len(scores), dtype=np.int64)
    plan = stored(solve(CutoffPlanSpec(cutoff=cutoff), MODELS, scores, rows))
    expected = np.where(np.isfinite(scores), np.where(scores >= np.float32(cutoff), 2, 0), UNDECIDED)
    np.testing.assert_array_equal(apply(plan, scores, rows), expected)


@pytest.mark.parametrize(("cutoff", "model"), [(0.116, 2), (1e300, 0), (-1e300, 2)])
def test_cutoffs_beyond_float32(cutoff: float, model: int) -> None:
    """A cutoff of 0.116 admits a float32 score of 0.116; a cutoff outside float32 admits every score or none."""
    scores = np.array([0.116], dtype=np.float32)
    plan = solve(CutoffPlanSpec(cutoff=cutoff), MODELS, scores, np.array([0]))
    assert apply(plan, scores, np.array([0])).tolist() == [model]


@pytest.mark.parametrize(
    "spec",
    [
        CutoffPlanSpec(cutoff=0.5),
        SharePlanSpec(strategy="share", strong=0.5),
        PinPlanSpec(strategy="pin", model="middle"),
    ],
)
def test_a_row_chooses_before_the_plan(spec: PlanSpec) -> None:
    """Under every plan a row's pin wins, then its own cutoff, then the plan."""
    scores = np.array([0.9, 0.1, 0.3, 0.3, NONE], dtype=np.float32)
    own_cutoff = np.array([0.95, 0.05, NONE, 0.2, NONE], dtype=np.float32)
    pinned = np.array([-1, -1, -1, 0, 1], dtype=np.int16)
    by_plan = np.where(np.isfinite(own_cutoff) | (pinned >= 0), NONE, scores)
    rows = np.arange(5, dtype=np.int64)
    plan = solve(spec, MODELS, by_plan, rows)
    left_to_the_plan = {"cutoff": 0, "share": 0, "pin": 1}[spec.strategy]
    assert assign(scores, rows, own_cutoff, pinned, plan, MODELS).tolist() == [0, 2, left_to_the_plan, 0, 1]


def test_a_pin_needs_no_scores() -> None:
    """A pin plan, made without any score, sends every row to the pinned model, scored or not."""
    plan = stored(
        solve(PinPlanSpec(strategy="pin", model="middle"), MODELS, np.array([], np.float32), np.array([], int))
    )
    scores = np.array([NONE, 0.2], dtype=np.float32)
    assert apply(plan, scores, np.arange(2)).tolist() == [1, 1]
    assert plan.expected_share == {"small": 0.0, "middle": 1.0, "large": 0.0}


def test_one_model_is_both_ends() -> None:
    """With one model, cheapest and strongest are the same, and that model's share is 1."""
    scores = np.array([0.1, 0.9], dtype=np.float32)
    plan = solve(SharePlanSpec(strategy="share", strong=0.5), ("only",), scores, np.arange(2))
    assert plan.expected_share == {"only": 1.0}
