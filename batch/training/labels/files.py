"""Reads files of labels into the data that routers are trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from batch.errors import InputError
from batch.reading.invalid import type_name
from batch.reading.labelled import NO_VALUE, PromptReader, default_name, plain_number
from batch.reading.rows import ReadFile, read_files, read_rows
from batch.training.data import Judged, Preferences
from schemas.training import JudgedDataSpec, PreferencesDataSpec, ScoresDataSpec

# How Chatbot Arena's files spell a tie; "both bad" counts as a tie too.
_TIES = frozenset({"tie", "tie (bothbad)", "both", "both_bad", "bothbad"})
_OUTCOMES = {"winner_model_a": 1.0, "winner_model_b": 0.0, "winner_tie": 0.5}

Reading = Callable[[Any], float | None]
"""Returns a cell's number, NaN for a cell without a judgement, or `None` for one that cannot be read as a number."""


@dataclass(frozen=True)
class Labels:
    """The labels of one item of `data`."""

    kind: str
    """Its kind."""
    data: Judged | Preferences
    """The labels; their models are not ordered by strength yet."""
    files: tuple[ReadFile, ...]
    """The files that were read."""
    skipped: int
    """Rows without a label."""
    notes: tuple[str, ...] = ()
    """Notes on them for the reader of the report."""


def read_labels(spec: JudgedDataSpec | ScoresDataSpec | PreferencesDataSpec, key: str) -> Labels:
    """Read the labels of one item of `data`, which the user calls `key`.

    Raises:
        InputError: with file and line, for whatever cannot be read or used.
        SpecError: for a prompt template that cannot be used.
    """
    files = read_files(spec.path, f"{key}.path")
    name = spec.name or default_name(files)
    if isinstance(spec, PreferencesDataSpec):
        return _preferences(spec, key, name, files)
    return _qualities(spec, key, name, files)


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


def _model(record: Mapping[str, Any], column: str, where: str) -> str:
    value = record.get(column)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: column {column!r} is {type_name(value)}, not the name of a model")
    return value


def _outcome(record: Mapping[str, Any], column: str | None, pair: tuple[str, str], where: str) -> float | None:
    """1 if the first model of `pair` won, 0 if the second did, one half for a tie; `None` if the row does not say.

    The winner is read from `column`. If that is `None`, it is read from the column `winner`, or, in rows without one,
    from the columns `winner_model_a`, `winner_model_b` and `winner_tie`: the first that is 1 counts. Where one column
    names the winner and both models of `pair` are the same, any winner is a tie. Raises InputError, which begins with
    `where`, if there is no such column or the winner is not understood.
    """
    if column is None and "winner" not in record and "winner_model_a" not in record:
        raise InputError(f"{where}: neither `winner` nor `winner_model_a` is a column; name it with `winner`")
    if column is None and "winner" not in record:
        for name, outcome in _OUTCOMES.items():
            if _quality(record.get(name)) == 1.0:
                return outcome
        return None
    said = record.get(column or "winner")
    text = said.strip().lower() if isinstance(said, str) else said
    if text is None or text in NO_VALUE:
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
