"""Contextual routing: the first rule that holds for a row decides its score or its model.

A rule may read the row's columns and may name a model, and `Router.score` allows neither. Adding columns to that
protocol would burden every router with columns that it does not read. So this class alone has a method `decide`, which
the scorer calls instead of `score`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import RuleSpec, RulesRouterSpec

Columns = Mapping[str, Any]

# Both spellings are common in published data sets.
_LANGUAGE_COLUMNS = ("language", "lang")


class Decision(NamedTuple):
    """The outcome of the rules for one row: a model, or else a score."""

    score: float
    model: str | None


class RulesRouter:
    """Applies the rules from the top; a prompt for which none holds gets the score `otherwise`."""

    def __init__(self, models: tuple[str, ...], spec: RulesRouterSpec) -> None:
        """`models` are the job's, cheapest first. Raises SpecError for a broken regular expression."""
        self.models: tuple[str, ...] = (models[-1],)
        self._rules = [_Rule(rule, place, models) for place, rule in enumerate(spec.rules)]
        self._otherwise = Decision(spec.otherwise, None)

    def decide(self, prompts: Sequence[str], columns: Sequence[Columns]) -> list[Decision]:
        """Return one decision per prompt, in order; `columns` holds each row's input columns by name."""
        return [self._first(prompt, row) for prompt, row in zip(prompts, columns, strict=True)]

    def score(self, prompts: Sequence[str]) -> Float32s:
        """Score prompts that have no columns.

        A rule that names a model counts as that model's place between the cheapest, 0, and the strongest, 1.
        """
        scores = (self._first(prompt, {}).score for prompt in prompts)
        return np.fromiter(scores, dtype=np.float32, count=len(prompts)).reshape(-1, 1)

    def _first(self, prompt: str, columns: Columns) -> Decision:
        words = len(prompt.split())
        return next((r.decision for r in self._rules if r.holds(prompt, words, columns)), self._otherwise)


class _Rule:
    def __init__(self, spec: RuleSpec, place: int, models: tuple[str, ...]) -> None:
        self._spec = spec
        self._pattern = _compiled(spec.matches, place)
        if spec.model is None:
            assert spec.score is not None, "RuleSpec demands one of the two"
            self.decision = Decision(spec.score, None)
        else:
            self.decision = Decision(models.index(spec.model) / max(len(models) - 1, 1), spec.model)

    def holds(self, prompt: str, words: int, columns: Columns) -> bool:
        spec = self._spec
        value = prompt if spec.column is None else columns.get(spec.column)
        return (
            (spec.min_words is None or words >= spec.min_words)
            and (spec.max_words is None or words <= spec.max_words)
            and (spec.equals is None or _same(value, spec.equals))
            and (spec.one_of is None or any(_same(value, one) for one in spec.one_of))
            and (self._pattern is None or (isinstance(value, str) and self._pattern.search(value) is not None))
            and (spec.language is None or _names(columns, _LANGUAGE_COLUMNS, spec.language))
            and (spec.topic is None or _names(columns, ("topic",), spec.topic))
        )


def _compiled(pattern: str | None, place: int) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise SpecError(f"router.rules[{place}].matches: {pattern!r} is no regular expression: {error}") from error


def _same(value: object, wanted: object) -> bool:
    # Python takes True for 1; a column of numbers and one of flags are different things.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _names(columns: Columns, keys: Sequence[str], wanted: str) -> bool:
    return any(str(columns[key]).casefold() == wanted.casefold() for key in keys if key in columns)


def _build(spec: RulesRouterSpec, context: BuildContext) -> Router:
    return RulesRouter(context.models, spec)


KIND = RouterKind(spec=RulesRouterSpec, build=_build)
