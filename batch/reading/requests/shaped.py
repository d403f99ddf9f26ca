"""A row's request: the result of every shape."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.requests.responses import ANSWER_LIMIT
from batch.reading.requests.system import SystemMessage
from schemas.openai_batch import EMBEDDINGS_URL, RESPONSES_URL

ANSWER_LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""Names of the limit of the answer's tokens in chat and completion requests."""
RESPONSES_LIMITS: Final = (ANSWER_LIMIT,)
INT32_MAX: Final = 2**31 - 1


@dataclass(slots=True, eq=False)
class Shaped:
    """A row's request."""

    url: str
    """Path of the API, one of BATCH_URLS."""

    body: dict[str, Any]
    """The request without `model`; never empty."""

    text: str
    """The text that routers score."""

    counted: str
    """All text of the prompt, whose tokens are counted."""

    max_tokens: int | None
    """Most tokens of the answer, over all choices; `None` if the request sets no limit."""

    deterministic: bool
    """True if the request sets temperature 0."""

    asked: str | None
    """The row's own `model`."""

    used: Set[str]
    """Columns of the record that became part of the request."""

    tokens: int = 0
    """Number of token ids in the prompt, in addition to the tokens of `counted`."""

    notes: Sequence[Fact] = ()
    """Notes on this row."""


class Own(NamedTuple):
    """What a row gives for its request besides the prompt."""

    values: dict[str, Any]
    """Its parameters, and its `model`."""
    columns: Set[str]
    """Its columns that become part of the request."""
    notes: tuple[Fact, ...] = ()
    """Notes on them."""

    def with_notes(self, *facts: Fact) -> "Own":
        """Return a copy with more notes."""
        return self._replace(notes=(*self.notes, *facts)) if facts else self

    def with_system(self, system: SystemMessage) -> "Own":
        """Return a copy with the columns and notes of the row's system message."""
        if not system.columns and not system.notes:
            return self
        return Own(self.values, self.columns | system.columns, (*self.notes, *system.notes))


def complete_request(
    url: str,
    body: dict[str, Any],
    text: str,
    counted: str,
    own: Own,
    *,
    ignored: Set[str],
    prompts: int = 1,
    tokens: int = 0,
) -> Shaped:
    """Check a row's request and complete it. Raises InvalidRow for parameters that cannot be sent.

    Args:
        ignored: columns that count as data: the row's `model`, if the job ignores it.
        prompts: how many prompts are in the body, each of which may be answered up to the limit.
        tokens: tokens of the prompt beside those of `counted`.
    """
    body.pop("model", None)
    if body.get("stream"):
        raise InvalidRow("streaming", "stream must be left out: answers of a batch come whole")
    most = answer_tokens(body, RESPONSES_LIMITS if url == RESPONSES_URL else ANSWER_LIMITS)
    temperature = body.get("temperature")
    if temperature is not None and (isinstance(temperature, bool) or not isinstance(temperature, int | float)):
        raise InvalidRow("wrong_type", f"temperature must be a number, not {type_name(temperature)}")
    return Shaped(
        url=url,
        body=body,
        text=text,
        counted=counted,
        max_tokens=None if most is None or url == EMBEDDINGS_URL else min(most * prompts, INT32_MAX),
        deterministic=temperature == 0 and temperature is not None,
        asked=None if ignored else _asked(own.values),
        used=own.columns - ignored if ignored else own.columns,
        tokens=tokens,
        notes=own.notes,
    )


def merge_params(under: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Merge the row's parameters over the job's. A row's answer limit, in either spelling, replaces the job's."""
    if not own:
        return under
    if any(key in own for key in ANSWER_LIMITS):
        under = {key: value for key, value in under.items() if key not in ANSWER_LIMITS}
    return {**under, **own}


def answer_tokens(body: dict[str, Any], limits: Sequence[str] = ANSWER_LIMITS) -> int | None:
    """Return the most tokens that all answers together may have. Raises InvalidRow if a limit or `n` is not a whole
    number.

    A whole float such as 256.0, as tables store it, is replaced by 256 in `body`: servers refuse the float.
    """
    most = None
    for key in limits:
        if body.get(key) is not None:
            most = _count(body, key)
            break
    choices = _count(body, "n") if body.get("n") is not None else 1
    return None if most is None else min(most * choices, INT32_MAX)


def _count(body: dict[str, Any], key: str) -> int:
    value = body[key]
    if type(value) is float and value.is_integer():
        value = body[key] = int(value)
    # Compare the type itself: True is an int too.
    if type(value) is not int or not 0 < value <= INT32_MAX:
        raise InvalidRow("wrong_type", f"{key} must be a whole number above 0")
    return value


def _asked(own: Mapping[str, Any]) -> str | None:
    model = own.get("model")
    if model is None or model == "":
        return None
    if not isinstance(model, str):
        raise InvalidRow("wrong_type", f"model must be a string, not {type_name(model)}")
    return model
