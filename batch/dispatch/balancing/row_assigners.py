"""Row assigners: which of the rows at hand an endpoint should take."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from batch.dispatch.balancing.balancers import ConsistentHash
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request, RowKind


class RowAssigner(Protocol):
    """Sorts rows into kinds, and chooses the kind that an endpoint takes next."""

    def kind(self, request: Request) -> RowKind:
        """The kind of a row, the same each time."""
        ...

    def update_due(self, now: float) -> bool:
        """Should `update` be called before the next choice? `now` is on the loop's clock."""
        ...

    def update(self, at_hand: Mapping[RowKind, int], now: float) -> None:
        """Prepare choices for rows as those at hand, counted by kind. This may take milliseconds."""
        ...

    def choose(self, endpoint: Endpoint, at_hand: Mapping[RowKind, int]) -> RowKind | None:
        """A kind of which there is a row at hand; `None`: the next row, whatever its kind.

        `at_hand` counts the rows at hand, by kind.
        """
        ...

    def learn(self, endpoint: Endpoint, tokens: int, seconds: float) -> None:
        """An answer of `tokens` tokens took `seconds` at this endpoint."""
        ...


class AffinityAssigner:
    """For `consistent_hash`: a row's kind is the endpoint that its key belongs to.

    While every endpoint is full, the next one with a free slot would take the next row, whatever its key, and no cache
    would be reused. With this assigner it takes a row of its own keys, if there is one at hand, else the next row.
    """

    def __init__(self, balancer: ConsistentHash, endpoints: Sequence[Endpoint]) -> None:
        self._balancer = balancer
        self._endpoints = endpoints

    def kind(self, request: Request) -> RowKind:
        return self._balancer.home(request, self._endpoints).index, 0

    def update_due(self, now: float) -> bool:
        return False

    def update(self, at_hand: Mapping[RowKind, int], now: float) -> None:
        """A row's home is the same at any time."""

    def choose(self, endpoint: Endpoint, at_hand: Mapping[RowKind, int]) -> RowKind | None:
        own = (endpoint.index, 0)
        return own if at_hand.get(own) else None

    def learn(self, endpoint: Endpoint, tokens: int, seconds: float) -> None:
        """A row's home does not depend on how fast it is."""
