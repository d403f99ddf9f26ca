"""Reads labelled prompts, for training and evaluation: the prompt of a record, and the number in a label's cell."""

from collections.abc import Mapping
from math import isnan, nan
from pathlib import PurePosixPath
from typing import Any, Final

import orjson

from batch.errors import InputError
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.prompts import conversation_text
from batch.reading.requests.conversations import conversation_in, found_messages
from batch.reading.rows import ReadFile
from batch.reading.template import PromptTemplate

NO_VALUE: Final = frozenset({"", "nan", "null", "none", "na", "n/a"})
"""Texts that mean "empty cell", in lower case."""

_TRUTHS = {"true": 1.0, "false": 0.0}


def default_name(files: list[ReadFile]) -> str:
    """The default name of a set of labels: its first file's name without folders and suffixes."""
    return PurePosixPath(files[0].name).name.split(".")[0]


class PromptReader:
    """Returns the prompt of a record: from a column of texts or conversations, or from a template over columns.

    A conversation may have any shape that the rows of a job may have; its prompt is the text that a job's router would
    score. Calling the reader raises InputError for a record without a prompt.
    """

    def __init__(self, text: str, key: str) -> None:
        self._template = PromptTemplate(text, key) if "{" in text else None
        self._column = text
        names = sorted(self._template.columns) if self._template is not None else [text]
        self.columns = [(key, name) for name in names]
        """Columns that at least one row must have, as pairs (key of the job file that names it, column)."""

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
    """The first text of a list (or of a list stored as JSON text); the content of a first message without a role."""
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
    """The first message with the role `user`; all messages if there is none."""
    return next(([one] for one in messages if isinstance(one, dict) and one.get("role") == "user"), messages)


def plain_number(value: Any) -> float | None:
    """Return the number in a cell, on any scale; NaN if the cell is empty, `None` if it holds no number.

    In CSV the text "nan" means an empty cell. Parquet has null for that, so a NaN in Parquet is an error in how the
    file was made, and gives `None`.
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
            if text in NO_VALUE:
                return nan
            if text in _TRUTHS:
                return _TRUTHS[text]
            try:
                return float(text)
            except ValueError:
                return None
    return None
