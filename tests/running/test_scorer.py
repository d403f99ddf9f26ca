"""Scorer: a table of rows as read becomes a table with scores, pinned models and own cutoffs."""

import json
import pickle
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import SpecError
from batch.planning.assign import assign
from batch.planning.solve import solve
from batch.reading.columns import READ_SCHEMA
from batch.routers.random import RandomRouter
from batch.running.scorer import UNKNOWN_MODEL, Scorer
from schemas.endpoints import ModelSpec
from schemas.job import JobSpec
from schemas.plans import SharePlanSpec
from schemas.routers import (
    ConstantRouterSpec,
    CorrectnessRouterSpec,
    ImportRouterSpec,
    LengthRouterSpec,
    RandomRouterSpec,
    RuleSpec,
    RulesRouterSpec,
)

MODELS = (ModelSpec(name="small", aliases=("cheap",)), ModelSpec(name="large"))
NAMES = ("small", "large")
RANDOM = RandomRouterSpec(kind="random")
THIRD_PARTY = "tests.routers.thirdparty"


def table(
    texts: Sequence[str | None], asked: Sequence[str | None] = (), carry: Sequence[dict[str, object]] = ()
) -> pa.Table:
    """Rows as `read_shard` gives them; a text of `None` makes an invalid row."""
    count = len(texts)
    values: dict[str, list[object]] = {
        "row": list(range(count)),
        "line": list(range(1, count + 1)),
        "id": [f"in.jsonl:{i + 1}" for i in range(count)],
        "text": list(texts),
        "url": [None if text is None else "/v1/chat/completions" for text in texts],
        "body": [None if text is None else b'{"messages":[]}' for text in texts],
        "deterministic": [False] * count,
        "asked": list(asked) or [None] * count,
        "carry": [json.dumps(columns).encode() for columns in carry] or [None] * count,
        "error_kind": ["invalid_json" if text is None else None for text in texts],
        "error_message": ["in.jsonl: broken" if text is None else None for text in texts],
    }
    return pa.table([pa.array(values.get(f.name, [None] * count), f.type) for f in READ_SCHEMA], schema=READ_SCHEMA)


def alone(text: str) -> float:
    return float(RandomRouter("large", seed=0).score([text])[0, 0])


def test_scored_rows_keep_their_order_and_columns() -> None:
    """Rows come back in order with all their columns; a pair router's one column is the score."""
    given_rows = table(["a", "b", "c"])
    scored = Scorer(RANDOM, MODELS).score(given_rows)
    assert scored.column_names == [*READ_SCHEMA.names, "score", "own_cutoff", "pinned"]
    assert scored.select(READ_SCHEMA.names).equals(given_rows)
    assert scored["score"].type == pa.float32()
    assert scored["score"].to_pylist() == [alone("a"), alone("b"), alone("c")]
    assert scored["own_cutoff"].to_pylist() == scored["pinned"].to_pylist() == [None] * 3


def test_invalid_rows_reach_no_router() -> None:
    """An invalid row has no score and keeps its error."""
    scored = Scorer(RANDOM, MODELS).score(table(["a", None], asked=["gpt-9", "gpt-9"]))
    assert scored["score"].to_pylist() == [None, None]
    assert scored["error_kind"].to_pylist() == [UNKNOWN_MODEL, "invalid_json"]


def test_no_valid_rows() -> None:
    """A shard whose rows are all invalid or pinned does not call its router, not even with an empty list."""
    rules = RulesRouterSpec(kind="rules", rules=(RuleSpec(topic="law", score=1),))
    broken = ImportRouterSpec(kind="import", path=f"{THIRD_PARTY}:WrongShape")
    for router in (rules, broken):
        assert Scorer(router, MODELS).score(table([None, "a"], [None, "large"]))["score"].to_pylist() == [None, None]


def test_a_row_may_choose_its_model() -> None:
    """A name or an alias pins a row, which then has no score; the name, never the alias, is stored."""
    scored = Scorer(RANDOM, MODELS).score(table(["a", "b", "c"], asked=["large", "cheap", None]))
    assert scored["pinned"].to_pylist() == ["large", "small", None]
    assert scored["score"].to_pylist() == [None, None, alone("c")]


def test_a_row_may_choose_its_router() -> None:
    """`router-<kind>-<cutoff>` scores a row with that router and stores its cutoff; other rows get the job's router."""
    asked = ["router-random-0.25", "router-constant--0.5", None]
    scored = Scorer(LengthRouterSpec(kind="length", midpoint=1), MODELS).score(table(["a", "b", "c"], asked=asked))
    assert scored["score"].to_pylist() == [alone("a"), 0.5, 0.5]
    assert scored["own_cutoff"].to_pylist() == [0.25, -0.5, None]
    assert scored["pinned"].to_pylist() == [None] * 3


def test_a_row_that_names_the_jobs_router_gets_it_as_configured() -> None:
    """A row that names the job's kind of router gets it with the job file's settings, not with defaults."""
    scorer = Scorer(ConstantRouterSpec(kind="constant", value=0.75), MODELS)
    assert scorer.score(table(["a"], asked=["router-constant-0.5"]))["score"].to_pylist() == [0.75]


@pytest.mark.parametrize(
    "asked",
    ["gpt-9", "", "router-mf-0.1", "router-random-high", "router-random-nan", "router-random-1e99", "router-random"],
)
def test_a_row_with_an_unknown_model_or_router_is_invalid(asked: str) -> None:
    """The message is one line that lists the known models and says what to do."""
    scored = Scorer(RANDOM, MODELS).score(table(["a", "b"], asked=[None, asked]), "in.jsonl")
    message = scored["error_message"][1].as_py()
    assert scored["error_kind"].to_pylist() == [None, UNKNOWN_MODEL]
    assert message.startswith(
        f"in.jsonl:2: asks for the model {asked!r}; known: small, cheap, large, and router-<kind>"
    )
    assert "`input.row_models: ignore` routes such rows by the plan" in message
    assert "\n" not in message
    for column in ("text", "body", "score"):
        assert scored[column][1].as_py() is None
        assert scored[column][0].as_py() is not None


def test_a_long_model_name_is_cut_in_the_message() -> None:
    """Whatever a row holds in `model`, the message stays short and on one line."""
    scored = Scorer(RANDOM, MODELS).score(table(["a"], asked=["x\n" * 5000]))
    message = scored["error_message"][0].as_py()
    assert message.startswith("line 1: ")
    assert len(message) < 500
    assert "\n" not in message


def test_row_models_may_be_ignored() -> None:
    """With `row_models: ignore` every row is scored for the plan, whatever model it names."""
    scorer = Scorer(RANDOM, MODELS, row_models="ignore")
    scored = scorer.score(table(["a", "b"], asked=["large", "gpt-9"]))
    assert scored["score"].to_pylist() == [alone("a"), alone("b")]
    assert scored["pinned"].to_pylist() == scored["error_kind"].to_pylist() == [None, None]


def test_rules_see_columns_and_may_pin() -> None:
    """A rule reads the row's columns, and scores the row or pins a model; a model that the row names goes first."""
    rules = (RuleSpec(topic="law", model="large"), RuleSpec(column="tier", equals=2, score=0.75))
    scorer = Scorer(RulesRouterSpec(kind="rules", rules=rules, otherwise=0.25), MODELS)
    carry: list[dict[str, object]] = [{"topic": "law"}, {"tier": 2}, {}, {"topic": "law"}]
    scored = scorer.score(table(["a", "b", "c", "d"], asked=[None, None, None, "small"], carry=carry))
    assert scored["pinned"].to_pylist() == ["large", None, None, "small"]
    assert scored["score"].to_pylist() == [None, 0.75, 0.25, None]
    assert scorer.score(table(["a"]))["score"].to_pylist() == [0.25]


def test_one_quality_column_per_model() -> None:
    """A router with a column per model stores every model's quality; the score is strongest minus cheapest."""
    spec = ImportRouterSpec(kind="import", path=f"{THIRD_PARTY}:QualityOfThree")
    scored = Scorer(spec, MODELS).score(table(["a", "b", "c"], asked=[None, "large", "router-constant-0.1"]))
    assert scored["score"].to_pylist() == [0.25, None, 0.5]
    assert scored["quality:small"].to_pylist() == [0.5, None, None]
    assert scored["quality:large"].to_pylist() == [0.75, None, None]


def test_the_default_router() -> None:
    """The correctness router's score is the gain in probability; both probabilities are stored."""
    scored = Scorer(CorrectnessRouterSpec(), MODELS).score(table(["What is 2 + 2?", None]))
    gain = scored["quality:large"][0].as_py() - scored["quality:small"][0].as_py()
    assert scored["score"][0].as_py() == pytest.approx(gain, abs=1e-6)
    assert scored["score"][1].as_py() is None


@pytest.mark.parametrize(("name", "says"), [("NotFinite", "not finite"), ("WrongShape", r"shape \(2,\), not \(2, 1\)")])
def test_a_router_that_breaks_its_promise(name: str, says: str) -> None:
    """A user's router that does not return one finite score per prompt ends the job with a SpecError."""
    scorer = Scorer(ImportRouterSpec(kind="import", path=f"{THIRD_PARTY}:{name}"), MODELS)
    with pytest.raises(SpecError, match=says):
        scorer.score(table(["a", "b"]))


def test_a_pin_plan_asks_for_no_score() -> None:
    """Under `pin` the job's router is not loaded, but rows that name another router are scored by it."""
    job = JobSpec.model_validate(
        {
            "input": {"path": "in.jsonl"},
            "router": {"kind": "import", "path": "no_such_package:Router"},
            "models": [{"name": "only"}],
            "output": {"path": "out.jsonl"},
        }
    )
    scored = Scorer.for_job(job).score(table(["a", "b"], asked=[None, "router-constant-0.1"]))
    assert scored["score"].to_pylist() == [None, 0.5]
    with pytest.raises(SpecError, match="cannot import"):
        Scorer(job.router, job.models)


def test_no_rows() -> None:
    """A table without rows keeps the types of its columns."""
    scored = Scorer(RANDOM, MODELS).score(table([]))
    assert scored.num_rows == 0
    assert scored.schema.field("score").type == pa.float32()
    assert scored.schema.field("pinned").type == pa.string()


def test_a_scorer_made_from_pickled_values_gives_the_same_scores() -> None:
    """Ray pickles a job's values to send them to an actor, which makes the scorer there."""
    values = pickle.loads(pickle.dumps((RANDOM, MODELS)))
    assert Scorer(*values).score(table(["a"]))["score"].to_pylist() == [alone("a")]


@given(st.lists(st.text(max_size=5), max_size=30), st.floats(0, 1), st.data())
def test_a_share_is_exact_from_text_to_model(texts: list[str], strong: float, data: st.DataObject) -> None:
    """The share is exact over the rows left to the plan, however the input is divided into shards."""
    cut = data.draw(st.integers(0, len(texts)))
    scorer = Scorer(RANDOM, MODELS)
    whole = table(texts, asked=["large" if text.startswith("0") else None for text in texts])
    parts = [scorer.score(whole.slice(0, cut)), scorer.score(whole.slice(cut))]
    columns = [
        (
            np.array(p["score"].to_numpy(), np.float32),
            p["row"].to_numpy(),
            np.array(p["own_cutoff"].to_numpy(), np.float32),
        )
        for p in parts
    ]
    scores, rows = (np.concatenate([c[i] for c in columns]) for i in (0, 1))
    plan = solve(SharePlanSpec(strategy="share", strong=strong), NAMES, scores, rows)
    strongest = 0
    for part, (score, row, own) in zip(parts, columns, strict=True):
        pinned = np.array([-1 if name is None else NAMES.index(name) for name in part["pinned"].to_pylist()], np.int16)
        chosen = assign(score, row, own, pinned, plan, NAMES)
        strongest += int(np.count_nonzero((chosen == 1) & (pinned < 0)))
    left_to_the_plan = sum(not text.startswith("0") for text in texts)
    assert strongest == round(strong * left_to_the_plan)
