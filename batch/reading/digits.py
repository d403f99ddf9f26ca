"""Numbers that no double holds, by their digits."""

from math import isnan


class Digits(float):
    """A float that stands for a number it does not hold; `str` gives the number.

    Attributes:
        text: the number as it was written; `NaN`, `Infinity` or `-Infinity` where it is none.
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
    """NaN or an infinity, by the name that Python's and JavaScript's JSON have for it."""
    return Digits.of("NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity")
