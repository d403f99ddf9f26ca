"""The contract that every router keeps."""

from typing import get_args

import numpy as np
import pytest

from batch.routers.base import Router
from batch.routers.registry import KINDS, ROW_KINDS, build_router, row_spec
from schemas.routers import (
    ConstantRouterSpec,
    ImportRouterSpec,
    LengthRouterSpec,
    RandomRouterSpec,
    RouterSpec,
    RuleSpec,
    RulesRouterSpec,
)
from tests.routers.conftest import PAIR

SPECS: dict[str, RouterSpec] = {
    "random": RandomRouterSpec(kind="random"),
    "constant": ConstantRouterSpec(kind="constant", value=0.25),
    "length": LengthRouterSpec(kind="length"),
    "rules": RulesRouterSpec(
        kind="rules", rules=(RuleSpec(min_words=4, score=0.5), RuleSpec(matches="x", model="large"))
    ),
    "import": ImportRouterSpec(kind="import", path="tests.routers.thirdparty:CountsQuestionMarks"),
}

PROMPTS = ["", "Why?", "Añade 你好 🎉", "one two three four five", " ".join(["word"] * 700), "a\x00b", "Why?"]


# Kinds of router that load a checkpoint; fixtures in conftest have these names.
LOADED = ("correctness", "static", "bert", "causal_llm", "knn", "cluster", "mf", "sw_ranking")


@pytest.fixture(params=[*SPECS, *LOADED])
def router(request: pytest.FixtureRequest) -> Router:
    if request.param in LOADED:
        built: Router = request.getfixturevalue(request.param)
        return built
    return build_router(SPECS[request.param], PAIR, seed=7)


def test_shape_and_type(router: Router) -> None:
    """Scores are float32, finite, one row per prompt and one column per name in `models`."""
    scores = router.score(PROMPTS)
    assert scores.shape == (len(PROMPTS), len(router.models))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()


def test_no_prompts(router: Router) -> None:
    """No prompts give no rows, but still one column per model."""
    assert router.score([]).shape == (0, len(router.models))


def test_neighbours_do_not_matter(router: Router) -> None:
    """A prompt's scores are the same alone, in a batch and in another order, to 1e-5."""
    together = router.score(PROMPTS)
    alone = np.concatenate([router.score([prompt]) for prompt in PROMPTS])
    reversed_ = router.score(PROMPTS[::-1])[::-1]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-5)
    np.testing.assert_allclose(reversed_, together, rtol=0, atol=1e-5)


def test_no_hidden_state(router: Router) -> None:
    """The same call gives the same scores again."""
    np.testing.assert_array_equal(router.score(PROMPTS), router.score(PROMPTS))


def test_kinds_that_rows_may_name() -> None:
    """A row may name a router of each kind that needs nothing but its defaults, and no other."""
    assert {kind: spec.kind for kind in ROW_KINDS if (spec := row_spec(kind))} == {kind: kind for kind in ROW_KINDS}
    assert row_spec("rules") is None
    assert row_spec("mf") is None


def test_every_spec_has_a_record() -> None:
    """Each kind of router that a job file may name has a record, which names its spec."""
    specs = get_args(get_args(RouterSpec)[0])
    assert {kind.spec for kind in KINDS.values()} == set(specs)
    assert set(KINDS) == {*SPECS, *LOADED}
