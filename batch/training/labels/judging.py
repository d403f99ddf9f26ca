"""Judges answers: by comparison with a reference, or by a function of the user's own."""

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isnan, nan
from typing import Any

from batch.errors import InputError, SpecError
from batch.user_code import described, import_own
from schemas.training import ExactJudgeSpec, FunctionJudgeSpec

LAST_NUMBER = "last_number"
_NUMBER = re.compile(r"(?<!\w)[-+]?[$€£]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NOT_IN_A_NUMBER = str.maketrans("", "", "$€£,+")


@dataclass(frozen=True, slots=True)
class AnswerToJudge:
    """A model's answer to a prompt, with what a judge needs."""

    where: str
    """`<file>:<line>` of the result."""
    model: str
    """Name of the model that gave the answer."""
    prompt: str
    """The prompt's text, as routers score it."""
    content: str
    """The answer's text."""
    row: Mapping[str, Any]
    """The input's row."""
    row_where: str
    """`<file>:<line>` of the input's row."""


Judge = Callable[[Sequence[AnswerToJudge]], Sequence[float]]
"""Returns the quality of each answer, from 0 to 1, in order; NaN for an answer that it cannot judge."""

Extract = Callable[[str], str | None]
"""Returns the part of a text that is compared; `None` if the text has no such part."""


def exact_judge(spec: ExactJudgeSpec, key: str) -> Judge:
    """Build a judge that compares the answer, or a part of it, with the reference; without such a part it is wrong.

    Raises:
        SpecError: `extract` is no regular expression.
    """
    extract = extractor(spec.extract, f"{key}.extract")

    def said(text: str) -> str | None:
        part = extract(text)
        return part.casefold() if part is not None and spec.ignore_case else part

    def judge(answers: Sequence[AnswerToJudge]) -> list[float]:
        return [_compared(answer, spec.column, said) for answer in answers]

    return judge


def _compared(answer: AnswerToJudge, column: str, said: Extract) -> float:
    reference = answer.row.get(column)
    if reference is None or reference == "":
        return nan
    if isinstance(reference, list | dict):
        raise InputError(f"{answer.row_where}: column {column!r} holds no text, so no answer can equal it")
    right = said(str(reference))
    if right is None:
        raise InputError(f"{answer.row_where}: `extract` finds nothing in the reference in column {column!r}")
    return float(said(answer.content) == right)


def function_judge(spec: FunctionJudgeSpec, key: str) -> Judge:
    """Build a judge that calls the function at `spec.path`. Raises SpecError, in one line, if there is none."""
    module_name, _, name = spec.path.partition(":")
    function = import_own(spec.path, f"{key}.path")
    if not callable(function):
        raise SpecError(f"{key}.path: the module {module_name!r} has no function {name!r}")

    def judge(answers: Sequence[AnswerToJudge]) -> list[float]:
        return [_asked(function, answer, f"{key}.path: {spec.path}") for answer in answers]

    return judge


def _asked(function: Callable[..., Any], answer: AnswerToJudge, who: str) -> float:
    try:
        verdict = function(answer.prompt, answer.content, dict(answer.row))
    except Exception as error:  # the user's own code may raise anything, and the place is worth more than a trace
        raise InputError(f"{who} failed for {answer.where}: {described(error)}") from error
    if verdict is None:
        return nan
    try:
        quality = float(verdict)
    except (TypeError, ValueError) as error:
        raise InputError(f"{who} returned {type(verdict).__name__} for {answer.where}, not a number") from error
    if not (isnan(quality) or 0.0 <= quality <= 1.0):
        raise InputError(f"{who} returned {quality:g} for {answer.where}, not a number from 0 to 1")
    return quality


def extractor(extract: str | None, key: str) -> Extract:
    """Build what extracts the part of a text that is compared: all of it, its last number, or a pattern's last match.

    Numbers come in one spelling, so that `$1,200.00` equals `1200`.

    Raises:
        SpecError: it is no regular expression.
    """
    if extract is None:
        return str.strip
    if extract == LAST_NUMBER:
        return last_number
    try:
        pattern = re.compile(extract)
    except re.error as error:
        raise SpecError(f"{key}: {extract!r} is not a regular expression: {error}; or {LAST_NUMBER}") from error

    def last_match(text: str) -> str | None:
        found = deque(pattern.finditer(text), maxlen=1)
        part = found[0][1 if pattern.groups else 0] if found else None
        return None if part is None else part.strip()

    return last_match


def last_number(text: str) -> str | None:
    """The last number in a text, as digits; `None` if there is none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    number = Decimal(found[-1].translate(_NOT_IN_A_NUMBER))
    # A zero has a sign and an exponent of its own.
    return "0" if not number else str(number.normalize())
