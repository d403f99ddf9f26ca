"""`cutoff_for` chooses a cutoff from scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.planning.assign import as_score
from batch.planning.cutoffs import cutoff_for
from batch.planning.solve import solve
from schemas.plans import CutoffPlanSpec

numbers = st.floats(-1, 1, width=32)


def scores(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@given(st.lists(numbers, min_size=1, max_size=40), st.floats(0, 1))
def test_no_cutoff_comes_nearer(values: list[float], strong: float) -> None:
    """`above` rows score at least the cutoff, and no other cutoff comes nearer to the share."""
    given_scores = scores(*values)
    cut = cutoff_for(strong, given_scores)
    assert np.count_nonzero(given_scores >= as_score(cut.cutoff)) == cut.above
    wanted = round(strong * len(values))
    reachable = {0, *(int(np.count_nonzero(given_scores >= score)) for score in given_scores)}
    assert abs(cut.above - wanted) == min(abs(count - wanted) for count in reachable)
    assert (cut.tied == 0) == (wanted in reachable)


@given(st.lists(numbers, min_size=1, max_size=40, unique=True), st.floats(0, 1))
def test_a_plan_with_it_meets_the_share(values: list[float], strong: float) -> None:
    """Pasted into a plan, the cutoff sends exactly the share if no two rows have the same score."""
    given_scores = scores(*values)
    cut = cutoff_for(strong, given_scores)
    pasted = CutoffPlanSpec.model_validate({"strategy": "cutoff", "cutoff": repr(cut.cutoff)})
    plan = solve(pasted, ("small", "large"), given_scores, np.arange(len(values)))
    assert plan.expected_share is not None
    assert plan.expected_share["large"] == pytest.approx(round(strong * len(values)) / len(values))


@pytest.mark.parametrize(
    ("strong", "cutoff", "above"), [(0.25, 0.8, 1), (0.5, 0.4, 2), (0.75, 0.1, 3), (0, 0.92, 0), (1, 0.0, 4)]
)
def test_it_is_short(strong: float, cutoff: float, above: int) -> None:
    """The cutoff has as few decimals as fit between the scores on either side, near their middle."""
    cut = cutoff_for(strong, scores(0.9123456, 0.0765432, 0.6123456, 0.1534567))
    assert (cut.above, cut.tied) == (above, 0)
    assert abs(cut.cutoff - cutoff) < 0.1
    assert len(str(cut.cutoff)) <= 4


def test_ties_are_counted() -> None:
    """If the share would end among equal scores, the nearest reachable share is chosen and `tied` counts them."""
    equal = scores(0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1)
    few, many = cutoff_for(2 / 7, equal), cutoff_for(4 / 7, equal)
    assert (few.above, few.tied) == (1, 4)
    assert (many.above, many.tied) == (5, 4)
    assert cutoff_for(1 / 7, equal).tied == 0
