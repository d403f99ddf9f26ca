"""A cap on spending that holds under concurrency: money is reserved before sending and corrected afterwards."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from batch.costs.prices import Price
from batch.dispatch.request import Request


class Budget:
    """The dollars of a run that are spent, reserved and left.

    `spent + reserved` never exceeds the cap, so the cap holds as long as every reservation is an upper bound.
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
        """Is it too much even if all attempts in flight turned out to cost nothing?"""
        return self.spent + amount > self.cap

    def reserve(self, amount: Decimal) -> None:
        """Reserve this much. Call it only right after `fits` returned true."""
        self.reserved += amount

    def settle(self, reserved: Decimal, used: Decimal) -> None:
        """An attempt for which `reserved` was held has ended and cost `used`."""
        self.reserved -= reserved
        self.spent += used
        if used < reserved:
            for listener in self._listeners:
                listener()

    def on_release(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever reserved money becomes free."""
        self._listeners.append(listener)


@dataclass(frozen=True, slots=True)
class Pricing:
    """What attempts at this pool's model cost, in dollars.

    Attributes:
        bound: the most that an attempt at the request can cost; `None`: nothing bounds it.
        cost: what an answer of so many prompt and completion tokens cost; `None`: unknown.
    """

    bound: Callable[[Request], Decimal | None]
    cost: Callable[[int | None, int | None], Decimal | None]

    @classmethod
    def at(cls, price: Price) -> "Pricing":
        """The pricing by a list price."""
        return cls(lambda request: price.bound(request.url, request.body, request.max_tokens), price.cost)
