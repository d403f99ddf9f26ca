"""A cap on spending that holds under concurrency: reserved before sending, corrected after."""

from collections.abc import Callable
from decimal import Decimal


class Budget:
    """Dollars that may still be spent.

    `spent + reserved` never exceeds the cap, so the cap cannot be overshot as long as every reservation is an upper
    bound.
    """

    def __init__(self, cap: Decimal, spent: Decimal = Decimal(0)) -> None:
        self.cap = cap
        self.spent = spent
        self.reserved = Decimal(0)
        self._listeners: list[Callable[[], None]] = []

    def fits(self, amount: Decimal) -> bool:
        """May this much be reserved now?"""
        return self.spent + self.reserved + amount <= self.cap

    def never_fits(self, amount: Decimal) -> bool:
        """Is it too much even if everything under way turned out free?"""
        return self.spent + amount > self.cap

    def reserve(self, amount: Decimal) -> None:
        """Only right after `fits` said yes."""
        self.reserved += amount

    def settle(self, reserved: Decimal, used: Decimal) -> None:
        """The attempt ended and cost this much."""
        self.reserved -= reserved
        self.spent += used
        if used < reserved:
            for listener in self._listeners:
                listener()

    def on_release(self, listener: Callable[[], None]) -> None:
        """Have `listener` called whenever reserved money comes back."""
        self._listeners.append(listener)
