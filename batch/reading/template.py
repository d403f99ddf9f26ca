"""The prompt template over an input's columns."""

from collections.abc import Mapping
from string import Formatter
from typing import Any

from batch.errors import SpecError
from batch.reading.invalid import InvalidRow, type_name

# What str.format would read as an attribute, an index, a conversion or a format.
NOT_PLAIN = frozenset(".[]!:")


class PromptTemplate:
    """Text with column names in braces, as "Question: {question}"; `{{` and `}}` stand for braces.

    `key` is what the user calls the template, for messages. Raises SpecError for anything in braces that is not a
    plain name.
    """

    def __init__(self, text: str, key: str = "input.prompt") -> None:
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise SpecError(f"{key}: {error}; write {{{{ and }}}} for braces in the text") from error
        self._pieces: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in pieces:
            if name is not None and (not name.strip() or spec or conversion or not NOT_PLAIN.isdisjoint(name)):
                raise SpecError(f"{key}: {{{name}}} is not a column's plain name, as in {{question}}")
            self._pieces.append((literal, name))
        self.columns = frozenset(name for _, name in self._pieces if name is not None)
        """Columns it takes from a row."""
        if not self.columns:
            raise SpecError(f"{key}: names no column; put one in braces, as in {{question}}")

    def render(self, record: Mapping[str, Any]) -> str:
        """Fill in a row's columns. Raises InvalidRow when one is missing, null or no scalar, or all are blank."""
        filled: list[str] = []
        blank = True
        for literal, name in self._pieces:
            filled.append(literal)
            if name is not None:
                value = _text(record, name)
                blank = blank and not value.strip()
                filled.append(value)
        if blank:
            raise InvalidRow("empty_prompt", "every column of the prompt is blank")
        return "".join(filled)


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case None:
            raise InvalidRow("missing_column", f"column {name!r} is {'null' if name in record else 'missing'}")
    raise InvalidRow("wrong_type", f"column {name!r} is {type_name(value)}, which no prompt can hold")
