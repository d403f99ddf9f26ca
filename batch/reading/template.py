"""The prompt template: text with columns of the input in braces."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from string import Formatter
from typing import Any

import orjson

from batch.errors import SpecError
from batch.reading.exact import loads
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact

BRACES_HINT = "write {{ and }} for braces in the text"
"""Hint for braces that are meant as text."""

# A name, then any number of steps into its value: `.key` or `[3]` or `[key]`.
_PATH = re.compile(r"([^.\[\]]+)((?:\.[^.\[\]]+|\[[^\[\]]+\])+)\Z")
_INDEX = re.compile(r"-?[0-9]{1,9}\Z")
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]+)\]")
# JSON, code and LaTeX in a prompt have these characters between braces, or begin with a quote; names of columns do not.
_NO_NAME = frozenset("{}\\\n\r")
_QUOTES = ("'", '"')
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of the template: what the user wrote between two braces."""

    written: str
    """As written. If a column has exactly this name, the field is that column."""
    plain: str
    """`written` without its question mark. If a column has exactly this name, the field is that column."""
    column: str
    """Otherwise the column into which `steps` lead."""
    steps: tuple[str | int, ...]
    """Keys and indexes, from the column's value inwards."""
    optional: bool
    """True if the value may be missing or null; it is blank then."""


class PromptTemplate:
    """Text with columns in braces, such as "Question: {question}"; `{{` and `}}` stand for braces.

    `{turns[0]}`, `{turns[-1]}` and `{meta.title}` reach into lists and objects, also if these are stored as JSON text.
    A list becomes numbered lines. A column with a question mark, such as `{context?}`, is optional: if it is missing or
    null, it is blank. A column whose own name has dots, brackets or a question mark is found by that name first.

    Args:
        text: the template.
        key: the job file's key for it, for messages.
        may_be_plain: accept a text that names no column.

    Raises:
        SpecError: something in braces cannot be a column, or no column is named.
    """

    def __init__(self, text: str, key: str = "input.prompt", *, may_be_plain: bool = False) -> None:
        self._key = key
        try:
            pieces = list(Formatter().parse(text))
        except ValueError as error:
            raise SpecError(f"{key}: {error}; {BRACES_HINT}") from error
        self._pieces = [
            (literal, None if name is None else _field(name, spec, conversion, key))
            for literal, name, spec, conversion in pieces
        ]
        fields = [field for _, field in self._pieces if field is not None]
        self._optional = [
            (frozenset((field.column, field.plain, field.written)), _never_there(field))
            for field in dict.fromkeys(fields)
            if field.optional
        ]
        self._required = [field for field in fields if not field.optional]
        self._may_be_blank = not fields
        self.columns = frozenset(field.column for field in self._required)
        """Required columns."""
        self.named = frozenset(name for field in fields for name in (field.column, field.plain, field.written))
        """All columns that the template may read, optional ones included."""
        if not fields and not may_be_plain:
            doubled = "; doubled braces stand for braces in the text" if "{{" in text else ""
            raise SpecError(f"{key}: names no column; put one in braces, as in {{question}}{doubled}")

    def absent(self, columns: Set[str]) -> frozenset[str]:
        """Return the required columns that are not among `columns`."""
        return frozenset(field.column for field in self._required if columns.isdisjoint((field.column, field.written)))

    def blanks(self, record: Mapping[str, Any]) -> tuple[Fact, ...]:
        """Return notes on optional columns that a row lacks, so that a mistyped name is noticed."""
        return tuple(fact for names, fact in self._optional if names.isdisjoint(record))

    def render(self, record: Mapping[str, Any]) -> str:
        """Fill in a row's columns. Raises InvalidRow as `fill` does, and if all of them are blank."""
        filled = self.fill(record)
        if filled is None:
            raise InvalidRow("empty_prompt", f"every column of {self._key} is blank")
        return filled

    def fill(self, record: Mapping[str, Any]) -> str | None:
        """Fill in a row's columns; return `None` if the template names columns and all of them are blank.

        Raises InvalidRow if a required column is missing or null, or if a value cannot be written as text.
        """
        filled: list[str] = []
        blank = not self._may_be_blank
        for literal, field in self._pieces:
            filled.append(literal)
            if field is not None:
                value = record.get(field.written)
                # Nearly every value is text in a column named without steps.
                text = value if type(value) is str else _text(record, field)
                blank = blank and not text.strip()
                filled.append(text)
        return None if blank else "".join(filled)


def _never_there(field: _Field) -> Fact:
    return Fact("optional_absent", f"`{{{field.written}}}` is blank, because there is no column `{field.column}`")


def _field(name: str, spec: str | None, conversion: str | None, key: str) -> _Field:
    if not name.strip() or name.strip().startswith(_QUOTES) or spec or conversion or not _NO_NAME.isdisjoint(name):
        raise SpecError(f"{key}: {_shown(name, spec, conversion)} is no column, as {{question}} is; {BRACES_HINT}")
    written = name.strip()
    plain = written.removesuffix("?").rstrip() or written
    path = _PATH.match(plain)
    column, steps = (plain, ()) if path is None else (path[1], tuple(_steps(path[2])))
    return _Field(name, plain, column, steps, optional=plain != written)


def _steps(text: str) -> Iterator[str | int]:
    for dotted, bracketed in _STEP.findall(text):
        yield int(bracketed) if _INDEX.match(bracketed) else dotted or _unquoted(bracketed)


def _unquoted(key: str) -> str:
    return key[1:-1] if len(key) > 2 and key[0] == key[-1] and key[0] in _QUOTES else key


def _shown(name: str, spec: str | None, conversion: str | None) -> str:
    """What the user wrote between braces, shortened to one line."""
    whole = name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
    line = " ".join(whole.split())
    return f"{{{line[:_SHOWN]}...}}" if len(line) > _SHOWN else f"{{{line}}}"


def _text(record: Mapping[str, Any], field: _Field) -> str:
    """The text of a field. Raises InvalidRow."""
    value, path = _found(record, field)
    if type(value) is float and field.steps:
        # In JSON text, orjson reads whole numbers beyond 64 bits as floats.
        value, path = _found(record, field, loads)
    # Tables write NaN for null. Only NaN is not equal to itself.
    if value is None or value != value:
        if field.optional:
            return ""
        what = "missing" if path not in record else "null" if value is None else "NaN"
        raise InvalidRow(
            "missing_column", f"column {path!r} is {what}; write {{{field.plain}?}} where a blank will do instead"
        )
    return _numbered(value, path) if type(value) is list else _scalar(value, path)


def _found(record: Mapping[str, Any], field: _Field, parse: Callable[[str], Any] = orjson.loads) -> tuple[Any, str]:
    """Return the value of a field (`None` if missing), and the path to it in the record. Raises InvalidRow."""
    for name in (field.written, field.plain):
        if name in record:
            return record[name], name
    value, path = record.get(field.column), field.column
    for step in field.steps:
        if value is None:
            break
        inside = _parsed(value, parse) if type(value) is str else value
        further = f"{path}[{step}]" if isinstance(step, int) else f"{path}.{step}"
        match inside, step:
            case list(), int():
                value = inside[step] if -len(inside) <= step < len(inside) else None
            case dict(), _:
                value = inside.get(str(step))
            case [], str():
                value = None  # an empty map of Parquet
            case [[_, _], *_], str() if all(isinstance(pair, list) and len(pair) == 2 for pair in inside):
                # A map of Parquet is read as a list of pairs.
                value = next((given for key, given in inside if str(key) == step), None)
            case _:
                raise InvalidRow("wrong_type", f"column {path!r} is {type_name(value)}: there is no {further!r}")
        path = further
    return value, path


def _parsed(text: str, parse: Callable[[str], Any]) -> Any:
    """Parse text that is a JSON list or object, as in the cells of a CSV file; return other text unchanged."""
    if text[:1] not in ("[", "{"):
        return text
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text


def _scalar(value: Any, path: str) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case bytes():
            raise InvalidRow("invalid_encoding", f"column {path!r} is {type_name(value)}")
    some = "[0]" if isinstance(value, list) else ".name"
    raise InvalidRow(
        "wrong_type", f"column {path!r} is {type_name(value)}; name what is meant in it, as {{{path}{some}}}"
    )


def _numbered(values: Sequence[Any], path: str) -> str:
    """Write the items of a list as lines: "1. yes", "2. no". Raises InvalidRow if an item is not a scalar."""
    lines = []
    for number, value in enumerate(values, 1):
        if value is None:
            raise InvalidRow("wrong_type", f"column {path!r} has a null among its items")
        lines.append(f"{number}. {_scalar(value, f'{path}[{number - 1}]')}")
    return "\n".join(lines)
