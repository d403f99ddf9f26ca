"""The routers without weights: random, constant, length, rules, and a user's own."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import SpecError
from batch.routers.length import LengthRouter
from batch.routers.random import RandomRouter
from batch.routers.registry import build_router
from batch.routers.rules import Decision, RulesRouter
from schemas.routers import ImportRouterSpec, RuleSpec, RulesRouterSpec
from tests.routers.conftest import PAIR

THREE = ("small", "middle", "large")
HERE = "tests.routers.thirdparty"


def rules(*given: RuleSpec, otherwise: float = 0.0) -> RulesRouter:
    return RulesRouter(THREE, RulesRouterSpec(kind="rules", rules=given, otherwise=otherwise))


def test_random_is_uniform() -> None:
    """Twenty thousand different prompts score uniformly on [0, 1)."""
    scores = RandomRouter("large", seed=0).score([f"prompt {i}" for i in range(20_000)])[:, 0]
    counts, _ = np.histogram(scores, bins=20, range=(0.0, 1.0))
    assert scores.min() >= 0.0
    assert scores.max() < 1.0
    assert counts.sum() == 20_000
    # Each bin expects 1,000 with a standard deviation of 31.
    assert counts.min() > 850
    assert counts.max() < 1150


def test_random_depends_on_the_seed() -> None:
    """Scores of two seeds do not correlate."""
    prompts = [f"prompt {i}" for i in range(5000)]
    one, two = (RandomRouter("large", seed).score(prompts)[:, 0] for seed in (0, 1))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.1, 1000))
def test_length_keeps_the_order_of_word_counts(fewer: int, more: int, midpoint: float) -> None:
    """More words never score lower, whatever the midpoint, and `midpoint` words score one half."""
    fewer, more = sorted((fewer, more))
    scores = LengthRouter("large", midpoint).score(["w " * fewer, "w " * more])[:, 0]
    assert 0.0 <= scores[0] <= scores[1] <= 1.0
    assert LengthRouter("large", 60).score(["w " * 60])[0, 0] == 0.5


def test_the_first_rule_that_holds_decides() -> None:
    """Rules are tried from the top, and a prompt that matches no rule gets `otherwise`."""
    router = rules(RuleSpec(matches="(?i)prove", model="large"), RuleSpec(min_words=3, score=0.5), otherwise=0.125)
    decisions = router.decide(["Prove that it is so", "one two three", "hello"], [{}] * 3)
    assert decisions == [Decision(1.0, "large"), Decision(0.5, None), Decision(0.125, None)]


@pytest.mark.parametrize(
    ("rule", "columns", "holds"),
    [
        (RuleSpec(column="tier", equals="gold", score=1), {"tier": "gold"}, True),
        (RuleSpec(column="tier", equals="gold", score=1), {"tier": "Gold"}, False),
        (RuleSpec(column="tier", equals="gold", score=1), {}, False),
        (RuleSpec(column="level", equals=1, score=1), {"level": 1}, True),
        (RuleSpec(column="level", equals=1, score=1), {"level": True}, False),
        (RuleSpec(column="flag", equals=False, score=1), {"flag": 0}, False),
        (RuleSpec(column="tier", one_of=("a", "b"), score=1), {"tier": "b"}, True),
        (RuleSpec(column="tier", one_of=("a", "b"), score=1), {"tier": ["b"]}, False),
        (RuleSpec(column="code", matches="^X", score=1), {"code": "X1"}, True),
        (RuleSpec(column="code", matches="^X", score=1), {"code": None}, False),
        (RuleSpec(language="DE", score=1), {"language": "de"}, True),
        (RuleSpec(language="de", score=1), {"lang": "DE"}, True),
        (RuleSpec(language="de", score=1), {"language": "fr"}, False),
        (RuleSpec(topic="law", score=1), {"topic": "Law"}, True),
        (RuleSpec(topic="law", score=1), {"subject": "law"}, False),
        (RuleSpec(max_words=2, score=1), {}, True),
        (RuleSpec(max_words=1, score=1), {}, False),
        (RuleSpec(min_words=2, topic="law", score=1), {"topic": "law"}, True),
        (RuleSpec(min_words=3, topic="law", score=1), {"topic": "law"}, False),
    ],
)
def test_conditions(rule: RuleSpec, columns: dict[str, object], holds: bool) -> None:
    """A rule holds if all of its conditions hold; an absent column meets no condition."""
    assert rules(rule).decide(["two words"], [columns]) == [Decision(float(holds), None)]


def test_rules_without_columns() -> None:
    """Without columns, a rule that names a model gives that model's place between cheapest and strongest as score."""
    router = rules(*(RuleSpec(matches=name, model=name) for name in THREE))
    np.testing.assert_array_equal(router.score(THREE)[:, 0], [0.0, 0.5, 1.0])


def test_a_broken_expression_is_the_job_files_fault() -> None:
    """A regular expression that does not compile is refused, and the message names its rule."""
    with pytest.raises(SpecError, match=r"router\.rules\[1\]\.matches: '\(' is no regular expression"):
        rules(RuleSpec(min_words=1, score=1), RuleSpec(matches="(", score=1))


def test_own_router_takes_options() -> None:
    """A class named by its path gets the job file's options."""
    spec = ImportRouterSpec(kind="import", path=f"{HERE}:CountsQuestionMarks", options={"scale": 0.5})
    assert build_router(spec, PAIR, seed=0).score(["a?b?"])[0, 0] == 1.0


@pytest.mark.parametrize(
    ("path", "options", "says"),
    [
        ("no_such_package.router:Mine", {}, "cannot import 'no_such_package.router'"),
        (f"{HERE}:Missing", {}, "has no class 'Missing'"),
        (f"{HERE}:a_function", {}, "has no class 'a_function'"),
        (f"{HERE}:NoRouter", {}, "has no method `score"),
        (f"{HERE}:Nameless", {}, "needs `models`"),
        (f"{HERE}:CountsQuestionMarks", {"colour": 1}, "refuses them"),
        (f"{HERE}:Fails", {"made": False}, r"cannot be made: KeyError: 'weights' \(thirdparty\.py:\d+\)$"),
    ],
)
def test_what_is_no_router_is_refused(path: str, options: dict[str, object], says: str) -> None:
    """A path that leads to no router is refused in one line that says what is missing."""
    with pytest.raises(SpecError, match=says) as refused:
        build_router(ImportRouterSpec(kind="import", path=path, options=options), PAIR, seed=0)
    assert "\n" not in str(refused.value)


def test_a_module_that_fails_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module may not be Python, or may raise while it is imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "no_python_at_all.py").write_text("class Mine\n")
    (tmp_path / "divides_by_zero.py").write_text("import math\n1 / 0\n")
    says = {"no_python_at_all": "SyntaxError", "divides_by_zero": r"ZeroDivisionError: .* \(divides_by_zero\.py:2\)$"}
    for module, said in says.items():
        with pytest.raises(SpecError, match=f"importing '{module}' failed: {said}") as refused:
            build_router(ImportRouterSpec(kind="import", path=f"{module}:Mine"), PAIR, seed=0)
        assert "\n" not in str(refused.value)


def test_own_router_that_fails_is_reported_in_one_line() -> None:
    """The line names the exception and its place in the user's code, also if the message has several lines."""
    router = build_router(ImportRouterSpec(kind="import", path=f"{HERE}:Fails"), PAIR, seed=0)
    says = r"`score` failed: RuntimeError: no answer to 2 prompts \(thirdparty\.py:\d+\)$"
    with pytest.raises(SpecError, match=says) as failed:
        router.score(["a", "b"])
    assert isinstance(failed.value.__cause__, RuntimeError)


def test_own_router_must_know_both_ends() -> None:
    """A router with a column per model needs one for the job's cheapest model and one for its strongest."""
    spec = ImportRouterSpec(kind="import", path=f"{HERE}:QualityOfThree")
    assert build_router(spec, PAIR, seed=0).models == ("large", "small", "extra")
    with pytest.raises(SpecError, match="no column for 'gpt-9'"):
        build_router(spec, ("small", "gpt-9"), seed=0)
