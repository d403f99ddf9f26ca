"""Which endpoint of a pool takes the next request. Each is a few lines over live endpoint state."""

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol, assert_never

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from schemas.job import BalancerName


class Balancer(Protocol):
    """Picks; the pool has already taken out whatever is unhealthy or at a limit."""

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        """One of `ready`, which is not empty and may differ from call to call."""
        ...


class RoundRobin:
    """The next one in order, whatever its weight."""

    def __init__(self) -> None:
        self._last = -1

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        picked = next((e for e in ready if e.index > self._last), ready[0])
        self._last = picked.index
        return picked


class WeightedRoundRobin:
    """nginx's smooth weighted round-robin: exact over each cycle, and never a whole pick ahead.

    Every ready endpoint gains its weight, the highest is picked and pays the sum back. Weights 5, 1, 1 give a a b a
    c a a.
    """

    def __init__(self) -> None:
        self._current: dict[int, float] = {}

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        current = self._current
        total = 0.0
        for endpoint in ready:
            total += endpoint.weight
            current[endpoint.index] = current.get(endpoint.index, 0.0) + endpoint.weight
        picked = max(ready, key=lambda e: current[e.index])
        current[picked.index] -= total
        return picked


class LeastConnections:
    """The fewest requests in flight for its weight; equals take turns, or a fast first endpoint would take them all."""

    def __init__(self) -> None:
        self._turns = 0
        self._last_turn: dict[int, int] = {}

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        turn = self._last_turn
        # The request itself is counted: of two idle endpoints the heavier one is the less loaded.
        picked = min(ready, key=lambda e: ((e.in_flight + 1) / e.weight, turn.get(e.index, -1)))
        self._turns += 1
        turn[picked.index] = self._turns
        return picked


class PowerOfTwo:
    """The less loaded of two drawn at random: within O(ln ln n) of the best, and no herd."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        if len(ready) == 1:
            return ready[0]
        first, second = self._random.sample(ready, 2)
        return min(first, second, key=lambda e: (e.in_flight + 1) / e.weight)


class RandomChoice:
    """Drawn by weight."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        return self._random.choices(ready, [e.weight for e in ready])[0]


def build_balancer(name: BalancerName, random: Random) -> Balancer:
    """A balancer with its own state: one per pool."""
    build: Callable[[], Balancer]
    match name:
        case "round_robin":
            build = RoundRobin
        case "weighted_round_robin":
            build = WeightedRoundRobin
        case "least_connections":
            build = LeastConnections
        case "power_of_two":
            return PowerOfTwo(random)
        case "random":
            return RandomChoice(random)
        case _:
            assert_never(name)
    return build()
