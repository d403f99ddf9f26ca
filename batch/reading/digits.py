"""Numbers that a double cannot hold, kept as the digits they were written with."""

from math import isnan


class Digits(float):
    """The nearest float, with the digits that were written; `str` returns these digits.

    Attributes:
        text: the number as it was written, or `NaN`, `Infinity` or `-Infinity`.
    """

    text: str

    @classmethod
    def of(cls, text: str) -> "Digits":
        """The number written as `text`."""
        made = cls(text)
        made.text = text
        return made

    def __str__(self) -> str:
        return self.text


def not_finite(value: float) -> Digits:
    """NaN or an infinity, spelled as Python's and JavaScript's JSON spell it."""
    return Digits.of("NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity")
