"""Balancers that pick by the measured speed and failures of endpoints."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from batch.dispatch.balancing.balancers import build_balancer
from batch.dispatch.endpoint import Endpoint
from batch.errors import ServerError
from tests.dispatch.pools import Clock, endpoints, picks
from tests.fakes import answer, request


def measured(seconds: Sequence[float], clock: Clock) -> list[Endpoint]:
    """Idle endpoints, each of which has just given its only answer, after these seconds."""
    pool = endpoints([1] * len(seconds), clock)
    begun = clock.now
    for endpoint, latency in sorted(zip(pool, seconds, strict=True), key=lambda pair: pair[1]):
        row = request()
        clock.now = begun
        endpoint.start(row)
        clock.now = begun + latency
        endpoint.answered(row, answer())
    return pool


def test_adaptive_measures_a_slow_endpoint_again() -> None:
    """However slow an endpoint was, adaptive gives it a twentieth of an average endpoint's turns."""
    pool = measured([1, 1, 10_000], Clock())
    counts = Counter(picks(build_balancer("adaptive", Random(0)), pool, [request()] * 100_000))
    average = (1 + 1 + 0) / 3
    assert counts[2] / 100_000 == pytest.approx(0.05 * average / (2 + 0.05 * average), rel=0.01)


def test_peak_ewma_tries_a_slow_endpoint_again() -> None:
    """peak_ewma forgets the peak of an idle slow endpoint, so it tries it again although the other is idle and fast."""
    clock = Clock()
    pool = measured([1, 50], clock)
    balancer = build_balancer("peak_ewma", Random(0))
    picked = []
    for _ in range(1000):
        row = request()
        endpoint = balancer.pick(row, pool)
        picked.append(endpoint.index)
        endpoint.start(row)
        clock.now += 1
        endpoint.answered(row, answer())
    assert set(picked[:100]) == {0}
    assert 1 in picked


def test_an_endpoint_of_which_nothing_is_known_gets_one_request_until_it_answers() -> None:
    """Until the unmeasured endpoint has answered, peak_ewma sends all other requests to the measured ones, however many
    these have in flight.
    """
    clock = Clock()
    pool = [*measured([1, 1], clock), endpoints([1, 1, 1], clock)[2]]
    balancer = build_balancer("peak_ewma", Random(0))
    probe = request()
    counts: Counter[int] = Counter()
    for _ in range(1000):
        endpoint = balancer.pick(probe, pool)
        endpoint.start(probe)
        counts[endpoint.index] += 1
    assert counts[2] == 1
    assert abs(counts[0] - counts[1]) <= 2
    clock.now += 1
    pool[2].answered(probe, answer())
    assert balancer.pick(request(), pool) is pool[2]


def test_endpoints_of_which_nothing_is_known_share_the_first_requests() -> None:
    """Before any endpoint has answered, peak_ewma picks by requests in flight and weight."""
    pool = endpoints([1, 2, 1])
    balancer = build_balancer("peak_ewma", Random(0))
    for _ in range(400):
        balancer.pick(request(), pool).start(request())
    assert [e.in_flight for e in pool] == [100, 200, 100]


def test_an_endpoint_that_hangs_does_not_look_faster_by_the_second() -> None:
    """One of two equally fast endpoints stops answering; it never has more than 12 requests in flight, and the other
    endpoint gets the rest.
    """
    clock = Clock()
    pool = measured([1, 1], clock)
    balancer = build_balancer("peak_ewma", Random(0))
    for _ in range(20):
        balancer.pick(request(), pool).start(request())
    for _ in range(1000):
        row = request()
        picked = balancer.pick(row, pool)
        picked.start(row)
        clock.now += 1
        if picked is pool[1]:
            picked.answered(row, answer())
    assert pool[0].in_flight <= 12


def test_a_short_answer_does_not_make_an_endpoint_slow() -> None:
    """An answer takes 0.5 s to its first token and 20 ms per token; the speed per token is the same for any length."""
    clock = Clock()
    for tokens in (1, 10, 100, 1000):
        (endpoint,) = endpoints([1], clock)
        row = request()
        endpoint.start(row)
        clock.now += 0.5 + 0.02 * tokens
        endpoint.answered(row, answer(completion_tokens=tokens))
        peak = endpoint.speed.peak(busy=True)
        throughput = endpoint.speed.throughput
        assert peak == pytest.approx(0.02)
        assert throughput == pytest.approx(50)


@pytest.mark.parametrize("latency", [0.01, 5.0, 600.0])
def test_failures_count_until_they_are_long_past(latency: float) -> None:
    """The share of failures rises with each failure, at any latency, and fades once failures stop."""
    clock = Clock()
    (endpoint,) = endpoints([1], clock)
    shares = [endpoint.speed.error_share]
    for _ in range(5):
        row = request()
        endpoint.start(row)
        clock.now += latency
        endpoint.failed(row, ServerError("500"))
        shares.append(endpoint.speed.error_share)
    assert shares[0] == 0
    assert shares == sorted(set(shares))
    assert shares[1] == 0.5
    clock.now += 10 * max(latency, 10)
    assert endpoint.speed.error_share < 0.05
    clock.now += 1e9
    assert endpoint.speed.error_share < 1e-6
