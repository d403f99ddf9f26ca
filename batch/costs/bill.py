"""Sums the cost of many rows exactly, with two integer additions per row."""

from collections.abc import Iterable
from decimal import Decimal
from typing import TypedDict

from batch.costs.prices import EXACT, Price


class BillState(TypedDict):
    """A bill as it is stored in JSON."""

    usd: str
    unknown: int


class Bill:
    """The cost of rows at one price, plus that of merged bills, whose price may have been another.

    Its dollars are exactly the sum of `price.cost(...)` over its rows.
    """

    __slots__ = ("_completion_tokens", "_merged", "_price", "_prompt_tokens", "unknown")

    def __init__(self, price: Price | None, merged: Decimal = Decimal(0), unknown: int = 0) -> None:
        self.unknown = unknown
        """How many rows have an unknown cost: no price, no usage, or a prompt longer than the price covers."""
        self._price = price
        self._merged = merged
        self._prompt_tokens = 0
        self._completion_tokens = 0

    def add(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Add the cost of one row."""
        if self._price is None or not self._price.covers(prompt_tokens, completion_tokens):
            self.unknown += 1
        else:
            self._prompt_tokens += prompt_tokens or 0
            self._completion_tokens += completion_tokens or 0

    def merge(self, other: "Bill") -> None:
        """Add another bill's dollars, at that bill's own price."""
        self._merged = EXACT.add(self._merged, other.usd)
        self.unknown += other.unknown

    @property
    def usd(self) -> Decimal:
        """Dollars of all rows whose cost is known."""
        if self._price is None:
            return self._merged
        return EXACT.add(self._merged, self._price.total(self._prompt_tokens, self._completion_tokens))

    def state(self) -> BillState:
        """The bill as JSON values, without its price."""
        return {"usd": str(self.usd), "unknown": self.unknown}

    @classmethod
    def restored(cls, state: BillState) -> "Bill":
        """Inverse of `state`. The bill has no price: merge it into one that has."""
        return cls(None, Decimal(state["usd"]), state["unknown"])

    @classmethod
    def sum(cls, bills: Iterable["Bill"]) -> "Bill":
        """All bills merged into one."""
        together = cls(None)
        for bill in bills:
            together.merge(bill)
        return together
