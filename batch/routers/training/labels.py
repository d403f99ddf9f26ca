"""Files of labels -> what routers are trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, isnan, nan
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson

from batch.errors import InputError
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.prompts import conversation_text
from batch.reading.requests.conversations import conversation_in, found_messages
from batch.reading.rows import ReadFile, read_files, read_rows
from batch.reading.template import PromptTemplate
from batch.routers.training.data import Judged, Preferences
from schemas.training import JudgedDataSpec, PreferencesDataSpec, ScoresDataSpec

# How Chatbot Arena's files spell a tie; both being bad is one too.
_TIES = frozenset({"tie", "tie (bothbad)", "both", "both_bad", "bothbad"})
_OUTCOMES = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.5}
_NOTHING = frozenset({"", "nan", "null", "none", "na", "n/a"})
_TRUTHS = {"true": 1.0, "false": 0.0}

Reading = Callable[[Any], float | None]
"""A cell's number; `None`: it cannot be read as one. NaN: nobody judged."""


@dataclass(frozen=True)
class Labels:
    """What one item of `data` gave."""

    kind: str
    """Its kind."""
    data: Judged | Preferences
    """The labels; the models are in no order yet."""
    files: tuple[ReadFile, ...]
    """What was read."""
    skipped: int
    """Rows without a label."""
    notes: tuple[str, ...] = ()
    """What a reader should know of them."""


def read_labels(spec: JudgedDataSpec | ScoresDataSpec | PreferencesDataSpec, key: str) -> Labels:
    """Read the labels of one item of `data`, which the user calls `key`.

    Raises:
        InputError: with file and line, for whatever cannot be read or used.
        SpecError: for a prompt template that cannot be used.
    """
    files = read_files(spec.path, f"{key}.path")
    name = spec.name or name_of(files)
    if isinstance(spec, PreferencesDataSpec):
        return _preferences(spec, key, name, files)
    return _qualities(spec, key, name, files)


def name_of(files: list[ReadFile]) -> str:
    """What to call labels that their author has not named."""
    return PurePosixPath(files[0].name).name.split(".")[0]


def _qualities(spec: JudgedDataSpec | ScoresDataSpec, key: str, name: str, files: list[ReadFile]) -> Labels:
    prompt_of = PromptReader(spec.prompt, f"{key}.prompt")
    columns = list(spec.models.values())
    asked = [(f"{key}.models.{model}", column) for model, column in spec.models.items()]
    if isinstance(spec, ScoresDataSpec):
        wanted = f"a number from {spec.lowest:g} to {spec.highest:g} (`lowest` and `highest`)"
        reading = _scaled(spec.lowest, spec.highest)
    else:
        wanted = "true, false or a number from 0 to 1 (other scales: kind: scores)"
        reading = _quality
    prompts: list[str] = []
    quality: list[list[float]] = []
    skipped = 0
    for where, record in read_rows(spec.path, f"{key}.path", [*prompt_of.columns, *asked]):
        prompt = prompt_of(record, where)
        row = [_number(record.get(column), reading, f"{where}: column {column!r}", wanted) for column in columns]
        if all(value != value for value in row):
            skipped += 1
            continue
        prompts.append(prompt)
        quality.append(row)
    if not prompts:
        raise InputError(f"{key}: none of its {skipped} rows has a label in {', '.join(columns)}")
    judged = Judged(name, prompts, tuple(spec.models), np.array(quality, dtype=np.float64))
    return Labels(spec.kind, judged, tuple(files), skipped)


def _preferences(spec: PreferencesDataSpec, key: str, name: str, files: list[ReadFile]) -> Labels:
    prompt_of = PromptReader(spec.prompt, f"{key}.prompt")
    columns = [*prompt_of.columns, (f"{key}.model_a", spec.model_a), (f"{key}.model_b", spec.model_b)]
    if spec.winner is not None:
        columns.append((f"{key}.winner", spec.winner))
    prompts: list[str] = []
    pairs: list[tuple[str, str]] = []
    outcomes: list[float] = []
    skipped = 0
    for where, record in read_rows(spec.path, f"{key}.path", columns):
        pair = (_model(record, spec.model_a, where), _model(record, spec.model_b, where))
        outcome = _outcome(record, spec.winner, pair, f"{key}.winner: {where}")
        if outcome is None:
            skipped += 1
            continue
        prompts.append(prompt_of(record, where, first_turn=True))
        pairs.append(pair)
        outcomes.append(outcome)
    if not prompts:
        raise InputError(f"{key}: none of its {skipped} rows says which answer was preferred")
    first, second = zip(*pairs, strict=True)
    return Labels(spec.kind, Preferences(name, prompts, first, second, np.array(outcomes)), tuple(files), skipped)


class PromptReader:
    """The prompt of a record: from a column of texts or of conversations, or by a template over columns.

    A conversation may have any shape that a job's rows may have; its prompt is the text that a job's routers score.
    Calling it raises InputError where a record has none.
    """

    def __init__(self, text: str, key: str) -> None:
        self._template = PromptTemplate(text, key) if "{" in text else None
        self._column = text
        names = sorted(self._template.columns) if self._template is not None else [text]
        self.columns = [(key, name) for name in names]
        """Columns that some row must have, each after the key that asks for it."""

    def __call__(self, record: Mapping[str, Any], where: str, *, first_turn: bool = False) -> str:
        value = record.get(self._column)
        try:
            if self._template is not None:
                return self._template.render(record)
            if first_turn:
                value = _first_turn(value)
            messages = self._messages(value)
            if messages is not None:
                return conversation_text({"messages": _asked_first(messages) if first_turn else messages}).text
        except InvalidRow as fault:
            raise InputError(f"{where}: {fault.message}") from fault
        if not isinstance(value, str):
            raise InputError(f"{where}: column {self._column!r} is {type_name(value)}, not the text of a prompt")
        if not value.strip():
            raise InputError(f"{where}: column {self._column!r} is blank; a label needs its prompt")
        return value

    def _messages(self, value: Any) -> list[Any] | None:
        """The messages of a conversation in any shape that a job's rows may have; `None`: the value is none."""
        if isinstance(value, list | dict):
            return conversation_in({self._column: value}, self._column)
        return found_messages(value, self._column)


def _first_turn(value: Any) -> Any:
    """The first of a list of texts, or of the JSON text of one; of a message that has no role, what it says."""
    if isinstance(value, str) and value.startswith("["):
        try:
            found = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value  # a prompt that begins with a bracket
    else:
        found = value
    match found:
        case [str(text), *_]:
            return text
        case [{"content": str(text), **rest}, *_] if "role" not in rest:
            return text
    return value


def _asked_first(messages: list[Any]) -> list[Any]:
    """The first message of a user; all messages where no user speaks."""
    return next(([one] for one in messages if isinstance(one, dict) and one.get("role") == "user"), messages)


def _model(record: Mapping[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: column {column!r} is {type_name(value)}, not the name of a model")
    return value


def _outcome(record: Mapping[str, Any], column: str | None, pair: tuple[str, str], where: str) -> float | None:
    """1 where the first won, 0 where the second did, one half for a tie; `None` where nobody says."""
    if column is None and "winner" not in record and "winner_model_a" not in record:
        raise InputError(f"{where}: neither `winner` nor `winner_model_a` is a column; name it with `winner`")
    if column is None and "winner" not in record:
        for name, outcome in _OUTCOMES.items():
            if _quality(record.get(name)) == 1.0:
                return outcome
        return None
    said = record.get(column or "winner")
    text = said.strip().lower() if isinstance(said, str) else said
    if text is None or text in _NOTHING:
        return None
    if text in ("model_a", "a", pair[0].lower()) and pair[0] != pair[1]:
        return 1.0
    if text in ("model_b", "b", pair[1].lower()) and pair[0] != pair[1]:
        return 0.0
    if text in _TIES or pair[0] == pair[1]:
        return 0.5
    raise InputError(f"{where}: the winner is neither model_a, model_b, tie nor one of the two models")


def _number(value: Any, reading: Reading, where: str, wanted: str) -> float:
    number = reading(value)
    if number is None:
        shown = f"{value!r}" if isinstance(value, int | float) else type_name(value)
        cure = "; leave it empty where nobody judged" if value != value else ""
        raise InputError(f"{where} is {shown}, not {wanted}{cure}")
    return number


def plain_number(value: Any) -> float | None:
    """A cell's number, on whatever scale: NaN where it is empty, `None` where it is no number.

    The text "nan" is how CSV says that a cell is empty; Parquet has a null for that, and a NaN beside it is a fault in
    how the file was made.
    """
    match value:
        case None:
            return nan
        case float() if isnan(value):
            return None
        case bool() | int() | float():
            return float(value)
        case str():
            text = value.strip().lower()
            if text in _NOTHING:
                return nan
            if text in _TRUTHS:
                return _TRUTHS[text]
            try:
                return float(text)
            except ValueError:
                return None
    return None


def _quality(value: Any) -> float | None:
    number = plain_number(value)
    return number if number is None or number != number or 0.0 <= number <= 1.0 else None


def _scaled(lowest: float, highest: float) -> Reading:
    def reading(value: Any) -> float | None:
        number = plain_number(value)
        if number is None or number != number:
            return number
        scaled = (number - lowest) / (highest - lowest)
        return scaled if isfinite(scaled) and 0.0 <= scaled <= 1.0 else None

    return reading
