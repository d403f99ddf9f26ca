"""Balancers, as claims about many picks."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.balancers import Balancer, LeastConnections, WeightedRoundRobin, build_balancer
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Cost
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.job import BalancerName
from tests.fakes import request

NAMES: Sequence[BalancerName] = (
    "round_robin",
    "weighted_round_robin",
    "least_connections",
    "power_of_two",
    "random",
)
COST = Cost(1, 0)


def endpoints(weights: Sequence[float]) -> list[Endpoint]:
    limits = LimitsSpec(max_in_flight=10**9)
    return [
        Endpoint(EndpointSpec(url=f"http://e{i}/v1", weight=w, limits=limits), "m", i, lambda: 0.0, Random(0))
        for i, w in enumerate(weights)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_balancer_picks_one_of_the_ready(name: BalancerName) -> None:
    """Whatever subset is ready, the pick is in it."""
    balancer = build_balancer(name, Random(1))
    pool = endpoints([1, 2, 3, 4])
    draw = Random(2)
    for _ in range(10_000):
        ready = [e for e in pool if draw.random() < 0.5] or [pool[0]]
        assert balancer.pick(request(), ready) in ready


def test_smooth_weighted_round_robin_of_5_1_1() -> None:
    """nginx's own example: a a b a c a a."""
    balancer = WeightedRoundRobin()
    pool = endpoints([5, 1, 1])
    assert [balancer.pick(request(), pool).index for _ in range(7)] == [0, 0, 1, 0, 2, 0, 0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_weighted_round_robin_is_exact_over_a_cycle_and_never_a_pick_ahead(weights: list[int]) -> None:
    """After each cycle every endpoint had exactly its weight, and none is ever a whole pick ahead of its share."""
    balancer = WeightedRoundRobin()
    pool = endpoints(weights)
    total = sum(weights)
    counts: Counter[int] = Counter()
    for t in range(1, 3 * total + 1):
        counts[balancer.pick(request(), pool).index] += 1
        for i, weight in enumerate(weights):
            assert counts[i] - t * weight / total < 1
        if t % total == 0:
            assert [counts[i] for i in range(len(weights))] == [w * t // total for w in weights]


def spread(balancer: Balancer, pool: list[Endpoint], picks: int, service: Sequence[float]) -> Counter[int]:
    """Picks with requests that end after each endpoint's own service time, in picks."""
    counts: Counter[int] = Counter()
    ends: list[tuple[float, Endpoint]] = []
    for t in range(picks):
        for end, endpoint in [e for e in ends if e[0] <= t]:
            ends.remove((end, endpoint))
            endpoint.abandoned(COST)
        picked = balancer.pick(request(), pool)
        picked.start(COST)
        counts[picked.index] += 1
        ends.append((t + service[picked.index], picked))
    return counts


def test_least_connections_follows_weights_when_speeds_are_equal() -> None:
    """Endpoints of equal speed get work in the ratio of their weights."""
    counts = spread(LeastConnections(), endpoints([3, 1]), 20_000, [64, 64])
    assert 2.8 < counts[0] / counts[1] < 3.2


def test_least_connections_sends_a_slow_endpoint_less() -> None:
    """An endpoint four times as slow gets about a fifth."""
    counts = spread(LeastConnections(), endpoints([1, 1]), 20_000, [20, 80])
    assert 0.17 < counts[1] / 20_000 < 0.23


def test_idle_equals_take_turns() -> None:
    """Two idle endpoints share work evenly, though the first is always free again."""
    balancer = LeastConnections()
    pool = endpoints([1, 1])
    counts = Counter(balancer.pick(request(), pool).index for _ in range(1000))
    assert counts[0] == counts[1] == 500


def test_power_of_two_keeps_loads_close() -> None:
    """A hundred thousand requests that stay: the fullest of ten endpoints is a handful above the mean."""
    pool = endpoints([1] * 10)
    balancer = build_balancer("power_of_two", Random(3))
    for _ in range(100_000):
        balancer.pick(request(), pool).start(COST)
    loads = [e.in_flight for e in pool]
    assert max(loads) - 10_000 < 20


def test_random_follows_weights() -> None:
    """Draws come in the ratio of the weights, within four standard deviations."""
    balancer = build_balancer("random", Random(4))
    pool = endpoints([3, 1])
    counts = Counter(balancer.pick(request(), pool).index for _ in range(100_000))
    assert abs(counts[0] - 75_000) < 4 * (100_000 * 0.75 * 0.25) ** 0.5
