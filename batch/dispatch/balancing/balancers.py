"""Balancers: which endpoint of a pool takes the next request. Each is a few lines over live endpoint state."""

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from random import Random
from typing import Protocol, assert_never

from batch.dispatch.balancing.imported import ImportedBalancer
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from schemas.imported import ImportSpec
from schemas.job import BalancerSpec


class Balancer(Protocol):
    """Picks one of the endpoints that can take a request now."""

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        """Pick one of `ready`, which is not empty and may differ from call to call. The pool then sends to it.

        The pool has already left out endpoints that are unhealthy or at a limit.
        """
        ...


class RoundRobin:
    """Picks the next endpoint in order, whatever its weight."""

    def __init__(self) -> None:
        self._last = -1

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        picked = next((e for e in ready if e.index > self._last), ready[0])
        self._last = picked.index
        return picked


class _SmoothTurns:
    """nginx's smooth weighted round-robin: every ready endpoint gains its weight, the highest pays the sum back."""

    def __init__(self) -> None:
        self._current: dict[int, float] = {}

    def take(self, ready: Sequence[Endpoint], weights: Sequence[float]) -> Endpoint:
        """The next of `ready`, whose weights are at the same places of `weights`."""
        current = self._current
        for endpoint, weight in zip(ready, weights, strict=True):
            current[endpoint.index] = current.get(endpoint.index, 0.0) + weight
        picked = max(ready, key=lambda e: current[e.index])
        current[picked.index] -= sum(weights)
        return picked


class WeightedRoundRobin:
    """Turns by weight, smoothly: exact over each cycle, and never a whole pick ahead. 5, 1, 1 give a a b a c a a."""

    def __init__(self) -> None:
        self._turns = _SmoothTurns()

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        return self._turns.take(ready, [e.weight for e in ready])


class Adaptive:
    """Smooth turns by weight, throughput, and the square of the share of attempts that succeeded.

    The share is squared because a failure costs an attempt here and another one elsewhere. An endpoint that has
    answered nothing yet counts as an average one.
    """

    # The least share of requests, relative to an average endpoint's: a slow or failing one must be measured again.
    least = 0.05

    def __init__(self) -> None:
        self._turns = _SmoothTurns()

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        measured = [e.speed.throughput for e in ready]
        known = [throughput for throughput in measured if throughput is not None]
        # Weights are relative to the pool's average, since the turns accumulate from pick to pick.
        average = sum(known) / len(known) if known else 1.0
        return self._turns.take(
            ready,
            [
                e.weight * max(self.least, (throughput or average) / average * _success(e) ** 2)
                for e, throughput in zip(ready, measured, strict=True)
            ],
        )


class LeastConnections:
    """Picks the endpoint with the fewest requests in flight for its weight. Equal ones take turns, or a fast first
    endpoint would get all requests.
    """

    def __init__(self) -> None:
        self._turns = 0
        self._last_turn: dict[int, int] = {}

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        turn = self._last_turn
        picked, least = ready[0], math.inf
        # This loop is `min` with a key of load and turn, at half the cost.
        for endpoint in ready:
            load = _load(endpoint)
            if load < least or (load == least and turn.get(endpoint.index, -1) < turn.get(picked.index, -1)):
                picked, least = endpoint, load
        self._turns += 1
        turn[picked.index] = self._turns
        return picked


class PowerOfTwo:
    """Draws two different endpoints by weight and picks the less loaded: within O(ln ln n) of the mean, and no herd."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        first = _drawn(self._random, ready)
        others = [e for e in ready if e is not first]
        return min(first, _drawn(self._random, others), key=_load) if others else first


class PeakEwma:
    """Finagle's peak EWMA: picks the least product of seconds per token and requests in flight, this one included.

    Errors are penalized, or failing fast would look like answering fast. An endpoint that has answered nothing yet
    counts as fast as the fastest, but gets one request at a time until it answers, as long as others are known.
    """

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        peaks = [e.speed.peak(busy=e.in_flight > 0) for e in ready]
        best = min((peak for peak in peaks if peak is not None), default=1.0)

        def cost(at: int) -> tuple[bool, float]:
            peak, endpoint = peaks[at], ready[at]
            is_being_probed = peak is None and endpoint.in_flight > 0
            return is_being_probed, (best if peak is None else peak) * _load(endpoint) / _success(endpoint) ** 2

        return ready[min(range(len(ready)), key=cost)]


class ConsistentHash:
    """Sends rows of one key to one endpoint, so that its prefix cache is reused, unless that has too much of the load.

    Rendezvous hashing: each key orders the endpoints in its own way, heavier ones tend to come first, and the first one
    with room takes the row; removing an endpoint moves only its own keys. Bounded loads (Mirrokni, Thorup and
    Zadimoghaddam, arXiv 1608.01350): of the requests in flight on the ready endpoints, this one included, each may have
    `room` times its weight's share. Do not use it with a handful of requests in flight: the bound then sends most rows
    elsewhere.
    """

    # HAProxy and Vimeo run with 125 % to 150 %.
    room = 1.25

    def __init__(self) -> None:
        self._salts: dict[int, int] = {}

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        total = sum(e.in_flight for e in ready) + 1
        share = self.room * total / sum(e.weight for e in ready)
        with_room = [e for e in ready if e.in_flight < math.ceil(share * e.weight - _ROUNDING)]
        return self.home(request, with_room)

    def home(self, request: Request, among: Sequence[Endpoint]) -> Endpoint:
        """The first of these endpoints in the order of the request's key, whatever they have in flight."""
        return min(among, key=lambda e: self._distance(request, e))

    def _distance(self, request: Request, endpoint: Endpoint) -> float:
        """The endpoint's distance for the request's key.

        It is exponentially distributed with the weight as its rate, so that each endpoint is the nearest for its
        weight's share of the keys.
        """
        salt = self._salts.get(endpoint.index)
        if salt is None:
            # The salt depends on the endpoint and not on its place in the list, so that keys stay where they are when
            # another endpoint is removed.
            named = f"{endpoint.url} {endpoint.model} {endpoint.spec.api_key_env}"
            salt = int.from_bytes(blake2b(named.encode(), digest_size=8).digest())
            self._salts[endpoint.index] = salt
        drawn = (_mixed((request.key or request.row) ^ salt) + 0.5) / 2**64
        return -math.log(drawn) / endpoint.weight


class RandomChoice:
    """Draws an endpoint by weight."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        return _drawn(self._random, ready)


class Priority:
    """Picks the first endpoint listed until it is full, then the next: for endpoints from the cheapest to the
    dearest.
    """

    def pick(self, request: Request, ready: Sequence[Endpoint]) -> Endpoint:
        return min(ready, key=lambda e: e.index)


_SPEED_BALANCERS = frozenset(("peak_ewma", "adaptive"))


def looks_at_speed(balancer: BalancerSpec) -> bool:
    """Does this balancer look at how fast endpoints answer? One of the user's own may."""
    return isinstance(balancer, ImportSpec) or balancer in _SPEED_BALANCERS


def build_balancer(spec: BalancerSpec, random: Random) -> Balancer:
    """A balancer with its own state: one per pool.

    Raises:
        SpecError: a class of the user's own cannot be built.
    """
    if isinstance(spec, ImportSpec):
        return ImportedBalancer(spec)
    build: Callable[[], Balancer]
    match spec:
        case "round_robin":
            build = RoundRobin
        case "weighted_round_robin":
            build = WeightedRoundRobin
        case "least_connections":
            build = LeastConnections
        case "power_of_two":
            return PowerOfTwo(random)
        case "peak_ewma":
            build = PeakEwma
        case "adaptive":
            build = Adaptive
        case "consistent_hash":
            build = ConsistentHash
        case "random":
            return RandomChoice(random)
        case "priority":
            build = Priority
        case _:
            assert_never(spec)
    return build()


# Shares that are whole numbers may come out a little too large.
_ROUNDING = 1e-9


def _load(endpoint: Endpoint) -> float:
    """Requests in flight for its weight; the next one counts, so of two idle endpoints the heavier has less load."""
    return (endpoint.in_flight + 1) / endpoint.weight


def _success(endpoint: Endpoint) -> float:
    return 1.0 - endpoint.speed.error_share


def _drawn(chance: Random, ready: Sequence[Endpoint]) -> Endpoint:
    return chance.choices(ready, [e.weight for e in ready])[0]


def _mixed(value: int) -> int:
    """64 bits, each of which depends on all bits of `value` (the finalizer of splitmix64)."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _64_BITS
    return value ^ value >> 31


_64_BITS = 2**64 - 1
