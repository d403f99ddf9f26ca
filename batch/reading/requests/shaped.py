"""A row's request, as every shape ends in it."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.requests.responses import ANSWER_LIMIT
from batch.reading.requests.system import SystemMessage
from schemas.openai_batch import EMBEDDINGS_URL, RESPONSES_URL

ANSWER_LIMITS: Final = ("max_completion_tokens", "max_tokens")
"""What chats and completions call the answer's limit."""
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
    """What routers score."""

    counted: str
    """All text of the prompt, for counting its tokens."""

    max_tokens: int | None
    """Most tokens of the answer over all choices; `None` where the request sets no limit."""

    deterministic: bool
    """Does the request set temperature 0?"""

    asked: str | None
    """The row's own `model`."""

    used: Set[str]
    """Columns of the record that went into the request."""

    tokens: int = 0
    """Tokens of the prompt beside those of `counted`: it has token ids."""

    notes: Sequence[Fact] = ()
    """What a reader should know of this row."""


class Own(NamedTuple):
    """What a row says of its request besides the prompt."""

    values: dict[str, Any]
    """Its parameters, and its `model`."""
    columns: Set[str]
    """Its columns that go into the request."""
    notes: tuple[Fact, ...] = ()

    def noting(self, *facts: Fact) -> "Own":
        """The same with more to know."""
        return self._replace(notes=(*self.notes, *facts)) if facts else self

    def after(self, system: SystemMessage) -> "Own":
        """The same, with what the row says of its system message."""
        if not system.columns and not system.notes:
            return self
        return Own(self.values, self.columns | system.columns, (*self.notes, *system.notes))


def finished(
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
    """The request of a row. Raises InvalidRow for parameters that cannot be sent.

    Args:
        ignored: columns that are data like any other: a row's `model`, where the job ignores it.
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


def merged(under: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row's parameters over the job's. A row's answer limit, in either spelling, replaces the job's."""
    if not own:
        return under
    if any(key in own for key in ANSWER_LIMITS):
        under = {key: value for key, value in under.items() if key not in ANSWER_LIMITS}
    return {**under, **own}


def answer_tokens(body: dict[str, Any], limits: Sequence[str] = ANSWER_LIMITS) -> int | None:
    """Most tokens the answers may have together. Raises InvalidRow for a limit or an `n` that is no whole number.

    A float that is whole, as tables write 256.0, becomes the number in `body`: servers refuse it as it is.
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
    # The type itself, because True is an int too.
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
