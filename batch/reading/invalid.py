"""Why a row cannot become a request."""

from typing import Literal

InvalidKind = Literal[
    "invalid_json",
    "invalid_encoding",
    "missing_column",
    "wrong_type",
    "ambiguous_shape",
    "empty_prompt",
    "streaming",
    "bad_method",
    "bad_url",
    "unsupported",
    "missing_id",
]


class InvalidRow(Exception):
    """What is wrong with one row. The message never quotes the row's values.

    Attributes:
        kind: the row's `error_kind`, a stable name.
        message: one line of text, without the file and line number.
    """

    def __init__(self, kind: InvalidKind, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message


def type_name(value: object) -> str:
    """JSON's own name for the type of `value`."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case bytes():
            return "bytes that are not UTF-8"
    return type(value).__name__
