"""Balancers over 100,000 requests to simulated endpoints: how they divide work where speeds and errors differ."""

import heapq
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from batch.dispatch.balancing.balancers import build_balancer
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Request
from batch.errors import ServerError
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.job import BalancerName
from tests.fakes import answer, fake_endpoint, request

REQUESTS = 100_000
# Enough where the difference is great.
FEWER = 30_000
START = 1000.0


@dataclass
class Server:
    """A simulated server that answers at its own speed and fails at random."""

    seconds_per_token: float = 0.02
    seconds_to_first: float = 0.5
    error_share: float = 0.0
    error_seconds: float = 0.01
    slots: int = 10**9
    """Requests it works on at once; others wait in a queue."""
    prefixes: int = 0
    """Prefixes its cache holds, the last used ones; on a cached prefix the first token takes no time."""
    hits: int = 0
    _ends: list[float] = field(default_factory=list)
    _cache: dict[int, None] = field(default_factory=dict)

    def serve(self, row: Request, tokens: int, now: float, draw: Random) -> tuple[float, bool]:
        """When the request ends, and whether it succeeds."""
        if draw.random() < self.error_share:
            return now + self.error_seconds, False
        begins = heapq.heappop(self._ends) if len(self._ends) >= self.slots else now
        ends = max(begins, now) + self.seconds_to_first * (not self._knows(row.key)) + self.seconds_per_token * tokens
        heapq.heappush(self._ends, ends)
        return ends, True

    def _knows(self, prefix: int) -> bool:
        known = prefix in self._cache
        self.hits += known
        self._cache.pop(prefix, None)
        self._cache[prefix] = None
        if len(self._cache) > self.prefixes:
            del self._cache[next(iter(self._cache))]
        return known


@dataclass
class Loop:
    """A closed loop: a constant number of requests in flight, each end followed by the next start."""

    servers: Sequence[Server]
    balancer: BalancerName
    under_way: int
    weights: Sequence[float] = ()
    most_each: int = 10**9
    """The pool's own limit: an endpoint with this many in flight is not ready."""
    key: Callable[[int], int] = lambda row: 0
    now: float = START

    def __post_init__(self) -> None:
        limits = LimitsSpec(max_in_flight=self.most_each)
        weights = self.weights or [1.0] * len(self.servers)
        self.pool = [
            fake_endpoint(EndpointSpec(url=f"http://e{i}", weight=w, limits=limits), i, lambda: self.now, Random(0))
            for i, w in enumerate(weights)
        ]
        self._balancer = build_balancer(self.balancer, Random(1))
        self._draw = Random(2)
        self._ends: list[tuple[float, int, Request, Endpoint, int, bool]] = []
        self._row = 0

    def run(self, requests: int = REQUESTS) -> Counter[int]:
        """Send this many requests and count them by endpoint; those in flight stay for the next call."""
        counts: Counter[int] = Counter()
        for _ in range(requests):
            if len(self._ends) == self.under_way:
                self._end()
            row = request(self._row)
            row.key = self.key(self._row)
            self._row += 1
            endpoint = self._balancer.pick(row, [e for e in self.pool if e.in_flight < self.most_each])
            endpoint.start(row)
            counts[endpoint.index] += 1
            tokens = self._draw.randrange(1, 400)
            end, well = self.servers[endpoint.index].serve(row, tokens, self.now, self._draw)
            heapq.heappush(self._ends, (end, row.row, row, endpoint, tokens, well))
        return counts

    def _end(self) -> None:
        self.now, _, row, endpoint, tokens, well = heapq.heappop(self._ends)
        if well:
            endpoint.answered(row, answer(completion_tokens=tokens))
        else:
            endpoint.failed(row, ServerError("500"))


def shares(counts: Counter[int]) -> list[float]:
    return [counts[i] / counts.total() for i in range(max(counts) + 1)]


def one_slow() -> list[Server]:
    """Three equal servers and one that takes four times as long for everything."""
    return [Server(), Server(), Server(), Server(0.02 * 4, 0.5 * 4)]


@pytest.mark.parametrize(
    ("balancer", "share"),
    [
        # As many in flight as the others, each taking four times as long.
        ("least_connections", 1 / 13),
        ("power_of_two", 1 / 13),
        # Turns in the ratio of the tokens per second that were measured.
        ("adaptive", 1 / 13),
        # A quarter as many in flight as the others, each taking four times as long.
        ("peak_ewma", 1 / 49),
        # This balancer does not measure speed.
        ("weighted_round_robin", 1 / 4),
    ],
)
def test_an_endpoint_four_times_as_slow_gets_its_share(balancer: BalancerName, share: float) -> None:
    """The share of a slow endpoint under each balancer, if load slows no server; the three equal ones share evenly."""
    got = shares(Loop(one_slow(), balancer, under_way=200).run())
    assert got[3] == pytest.approx(share, rel=0.08)
    assert max(got[:3]) - min(got[:3]) < 0.012


def test_least_connections_follows_weights_when_speeds_are_equal() -> None:
    """Endpoints of equal speed get work in the ratio of their weights."""
    counts = Loop([Server(), Server()], "least_connections", under_way=64, weights=[3, 1]).run()
    assert counts[0] / counts[1] == pytest.approx(3, rel=0.03)


def test_peak_ewma_fills_servers_of_unequal_size_that_queue() -> None:
    """Servers that queue silently and differ sixteenfold in slots are all kept busy.

    With equal numbers in flight the largest would be idle for part of the time.
    """

    def seconds(balancer: BalancerName) -> float:
        loop = Loop([Server(slots=64), Server(slots=16), Server(slots=4)], balancer, under_way=100)
        loop.run(FEWER)
        return loop.now - START

    bound = FEWER * (0.5 + 0.02 * 200) / (64 + 16 + 4)
    assert bound < seconds("peak_ewma") < 1.04 * bound
    assert seconds("least_connections") > 1.5 * bound


@pytest.mark.parametrize("balancer", ["peak_ewma", "adaptive"])
@pytest.mark.parametrize("error_share", [0.5, 1.0])
def test_an_endpoint_that_fails_fast_gets_less(balancer: BalancerName, error_share: float) -> None:
    """An endpoint whose errors come in 10 ms gets less than its third; by requests in flight alone it gets more."""
    servers = [Server(), Server(), Server(error_share=error_share)]
    most = 0.25 if error_share < 1 else 0.05
    assert 0 < shares(Loop(servers, balancer, under_way=60).run(FEWER))[2] < most
    assert shares(Loop(servers, "least_connections", under_way=60).run(FEWER))[2] > 0.45


def test_adaptive_shares_follow_speed_errors_and_weight() -> None:
    """Each endpoint gets turns in the ratio of weight x tokens per second x (share of successes) squared."""
    servers = [Server(), Server(0.04, 1.0), Server(error_share=0.3), Server(error_share=0.5, error_seconds=4.5)]
    weights = [1, 3, 2, 4]
    # Failures that take as long as answers halve the last one's tokens per second.
    wanted = [1 * 1, 3 * 0.5, 2 * 0.7**2, 4 * 0.5 * 0.5**2]
    got = shares(Loop(servers, "adaptive", under_way=400, weights=weights).run())
    assert got == pytest.approx([share / sum(wanted) for share in wanted], rel=0.06)


@pytest.mark.parametrize("balancer", ["peak_ewma", "adaptive"])
def test_an_endpoint_that_recovers_gets_its_share_back(balancer: BalancerName) -> None:
    """An endpoint twenty times as slow gets under 3 %; a minute after it recovers it has its third again."""
    servers = [Server(), Server(), Server(0.4, 10.0)]
    loop = Loop(servers, balancer, under_way=120)
    assert shares(loop.run(20_000))[2] < 0.03
    servers[2].seconds_per_token, servers[2].seconds_to_first = 0.02, 0.5
    well = loop.now
    while loop.now < well + 60:
        loop.run(100)
    assert shares(loop.run(20_000))[2] == pytest.approx(1 / 3, rel=0.1)


def random_key(keys: int) -> Callable[[int], int]:
    """Keys of rows, drawn at random from this many."""
    draw = Random(3)
    known = [draw.randrange(1, 2**64) for _ in range(keys)]
    return lambda row: known[draw.randrange(keys)]


@pytest.mark.parametrize(("under_way", "hits"), [(100, 0.97), (32, 0.9)])
def test_a_key_finds_its_prefix_in_the_servers_cache(under_way: int, hits: float) -> None:
    """With 200 prefixes and four servers that cache 80 each, nearly all rows go to a server that has their prefix.

    At random two in five would. The servers' loads differ by no more than their shares of keys and the bound.
    """

    def run(balancer: BalancerName) -> tuple[list[float], float]:
        servers = [Server(prefixes=80) for _ in range(4)]
        counts = Loop(servers, balancer, under_way, key=random_key(200)).run(FEWER)
        return shares(counts), sum(server.hits for server in servers) / FEWER

    got, hit = run("consistent_hash")
    assert hit > hits
    assert max(got) < 1.25 * min(got)
    _, at_random = run("least_connections")
    assert at_random == pytest.approx(0.4, abs=0.02)
