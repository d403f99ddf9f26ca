"""Money for many rows at one price, exact, while adding a row costs two integer additions."""

from collections.abc import Iterable
from decimal import Decimal
from typing import TypedDict

from batch.costs.prices import EXACT, Price


class BillState(TypedDict):
    """A bill as JSON."""

    usd: str
    unknown: int


class Bill:
    """Rows charged at one price, and bills merged into it, whose price may have been another.

    Its dollars are exactly the sum of `price.cost(...)` over its rows.
    """

    __slots__ = ("_completion_tokens", "_merged", "_price", "_prompt_tokens", "unknown")

    def __init__(self, price: Price | None, merged: Decimal = Decimal(0), unknown: int = 0) -> None:
        self.unknown = unknown
        """Rows whose cost is not known: no price, no usage, or a prompt too long for the price."""
        self._price = price
        self._merged = merged
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def add(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Charge one row."""
        if self._price is None or not self._price.covers(prompt_tokens, completion_tokens):
            self.unknown += 1
        else:
            self._prompt_tokens += prompt_tokens or 0
            self._completion_tokens += completion_tokens or 0

    def merge(self, other: "Bill") -> None:
        """Add another bill's dollars, at the price it was made with."""
        self._merged = EXACT.add(self._merged, other.usd)
        self.unknown += other.unknown

    @property
    def usd(self) -> Decimal:
        """Dollars of the rows whose cost is known."""
        if self._price is None:
            return self._merged
        return EXACT.add(self._merged, self._price.total(self._prompt_tokens, self._completion_tokens))

    def state(self) -> BillState:
        """As JSON."""
        return {"usd": str(self.usd), "unknown": self.unknown}

    @classmethod
    def restored(cls, state: BillState) -> "Bill":
        """From `state()`: to be merged into a bill that has a price."""
        return cls(None, Decimal(state["usd"]), state["unknown"])

    @classmethod
    def sum(cls, bills: Iterable["Bill"]) -> "Bill":
        """All of them together."""
        together = cls(None)
        for bill in bills:
            together.merge(bill)
        return together
