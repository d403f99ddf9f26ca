"""Finding limits that are not configured: on servers written as formulas, compared with the best fixed number."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.dispatch.limits.adaptive_concurrency import START, AdaptiveConcurrency
from batch.dispatch.limits.adaptive_rate import AdaptiveRate
from batch.dispatch.request import LimitCost
from tests.simulation.best_static import (
    CASES,
    CEILING,
    QUEUEING,
    SEEDS,
    SERVERS,
    Case,
    answers,
    reached,
    read,
    search,
    slots,
)
from tests.simulation.servers import Client, RatedServer, Run, Server

ONE = LimitCost(1, 0, 0, 0)
BEST = read()


@dataclass
class Found:
    """A run without configured limits."""

    concurrency: AdaptiveConcurrency
    client: Client


def find(server: Server, seed: int, *, paced: bool = True) -> Found:
    concurrency = AdaptiveConcurrency(CEILING)
    client = Client(server, concurrency, answers(seed), seed)
    if paced:
        client.pace = AdaptiveRate(client.clock)
    return Found(concurrency, client)


def share_of_best(name: str, seed: int, start: float, end: float) -> float:
    found = find(SERVERS[name](), seed).client.until(end).throughput(start, end)
    return found / BEST[Case(name, seed, start, end)].tokens_per_second


def test_the_table_belongs_to_these_servers() -> None:
    """Each number in flight reaches what the table says; if not, run `python -m benchmarks.best_static`."""
    assert list(BEST) == CASES
    for case, best in BEST.items():
        assert reached(case, best.in_flight) == pytest.approx(best.tokens_per_second, rel=1e-9), case


@pytest.mark.release
def test_no_number_does_better_than_the_table() -> None:
    """The whole search gives the same table."""
    assert {case: search(case) for case in CASES} == BEST


@pytest.mark.parametrize("name", QUEUEING)
def test_servers_that_queue(name: str) -> None:
    """From 60 s on, servers that queue reach 95 % of the throughput of the best fixed number in flight."""
    shares = [share_of_best(name, seed, 60, 120) for seed in SEEDS]
    assert sum(shares) / len(shares) >= 0.95


@pytest.mark.parametrize(
    ("name", "after_one", "after_four"),
    [
        ("thrashes beyond 100, 8 s", 0.87, 0.95),
        ("vLLM, 10 s and more", 0.9, 0.93),
        ("vLLM, 10 s and much more", 0.65, 0.73),
    ],
)
def test_slow_answers(name: str, after_one: float, after_four: float) -> None:
    """With answers so slow that a minute has few round trips, less is reached after one minute, and more after four."""
    assert sum(share_of_best(name, seed, 60, 120) for seed in SEEDS) / len(SEEDS) >= after_one
    assert share_of_best(name, SEEDS[0], 240, 480) >= after_four


def utilisation(run: Run, possible: float, start: float, end: float) -> float:
    return run.throughput(start, end) / possible


@pytest.mark.parametrize(("number", "speed"), [(1, 100), (4, 100), (32, 200), (32, 50), (32, 10), (200, 50)])
def test_slots_and_refusals(number: int, speed: float) -> None:
    """From 60 s on, slots without a queue are 95 % used, at no more than two refusals or one in a hundred requests."""
    used = []
    for seed in SEEDS:
        run = find(slots(number, speed, queues=False), seed).client.until(120)
        used.append(utilisation(run, number * speed, 60, 120))
        assert run.refusals(60, 120) <= max(2.0, 0.01 * run.answers(60, 120))
    assert sum(used) / len(used) >= 0.95


@pytest.mark.parametrize(
    ("rate", "burst", "seconds", "least"),
    [
        (100, 20, 1, 0.95),
        (100, 100, 1, 0.95),
        (50, 10, 0.2, 0.95),
        (10, 5, 1, 0.95),
        (20, 5, 5, 0.9),
        # Without any burst, of two requests closer together than the rate one is refused.
        (100, 1, 1, 0.92),
        (10, 1, 1, 0.85),
        (2, 1, 1, 0.9),
        (1, 1, 0.5, 0.8),
        # 200 in flight at once take four doublings of 10 s.
        (20, 5, 10, 0.6),
    ],
)
def test_rates_and_refusals(rate: float, burst: float, seconds: float, least: float) -> None:
    """A server's request rate is used from 60 s on; refusals, one in about 10 s, are what finds it."""
    used = []
    for seed in SEEDS:
        run = find(RatedServer(slots(10_000, 100 / seconds), rate, burst), seed).client.until(120)
        used.append(run.answers(60, 120) / (rate * 60))
        assert run.refusals(60, 120) <= max(5.0, 0.02 * rate * 60)
    assert sum(used) / len(used) >= least


@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("queues", [True, False])
def test_slots_that_change(factor: float, queues: bool) -> None:
    """A server whose slots double or halve is 95 % used a minute later."""
    for seed in SEEDS:
        server = slots(32 if factor > 1 else 64, 100, queues=queues)
        found = find(server, seed, paced=False)
        found.client.until(60)
        server.slots *= factor
        assert utilisation(found.client.until(180), server.slots * 100, 120, 180) >= 0.95


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_a_rate_that_changes(factor: float) -> None:
    """A rate that doubles or halves is 93 % used a minute later, with at most 1 % refused."""
    for seed in SEEDS:
        server = RatedServer(slots(10_000, 100), 100 / factor, 10)
        found = find(server, seed)
        found.client.until(60)
        server.rate *= factor
        run = found.client.until(180)
        assert run.answers(120, 180) >= 0.93 * server.rate * 60
        assert run.refusals(120, 180) <= 0.01 * server.rate * 60


def test_a_limit_known_from_an_earlier_run_is_used_at_once() -> None:
    """The limit that an earlier run found is used within seconds, and never beyond the ceiling."""
    first = find(slots(32, 100, queues=False), 1)
    first.client.until(120)
    assert first.concurrency.found == 32
    server = slots(32, 100, queues=False)
    again = Client(server, AdaptiveConcurrency(CEILING, known=first.concurrency.found), answers(2))
    assert again.until(20).throughput(3, 20) >= 0.93 * 3200
    assert AdaptiveConcurrency(16, known=100).allowed == 16
    assert AdaptiveConcurrency(CEILING).found is None


def test_nothing_is_learned_while_another_limit_binds() -> None:
    """With four rows in flight at a time, where eight would be allowed, the limit does not grow."""
    concurrency = AdaptiveConcurrency(CEILING)
    for now in range(1000):
        for _ in range(4):
            concurrency.take()
        for _ in range(4):
            concurrency.release()
            concurrency.answered(100, now, now + 1.0)
    assert concurrency.allowed == START


def test_answers_without_usage_are_counted() -> None:
    """The limit of a server that reports no tokens is found all the same."""

    class Silent(AdaptiveConcurrency):
        def answered(self, tokens: int, started: float, now: float) -> None:
            super().answered(0, started, now)

    run = Client(slots(16, 1.0), Silent(CEILING), lambda: 1.0).until(120)
    assert run.answers(60, 120) >= 0.95 * 16 * 60


def test_one_decrease_per_round_trip() -> None:
    """Refusals of requests that were sent before the last decrease do not decrease the limit again."""
    concurrency = AdaptiveConcurrency(CEILING, known=100)
    for _ in range(100):
        concurrency.take()
    concurrency.refused(0.0, 1.0)
    concurrency.release()
    assert concurrency.allowed == 95.0
    concurrency.refused(0.0, 1.0)
    concurrency.release()
    assert concurrency.allowed == 95.0
    concurrency.refused(1.5, 2.0)
    assert concurrency.allowed == pytest.approx(95 * 0.95)


@settings(max_examples=200, deadline=None)
@given(
    ceiling=st.integers(1, 100),
    known=st.none() | st.integers(1, 200),
    events=st.lists(st.tuples(st.sampled_from("aaaar"), st.floats(0.001, 5), st.integers(0, 500)), max_size=200),
)
def test_bounds(ceiling: int, known: int | None, events: list[tuple[str, float, int]]) -> None:
    """Whatever happens, the limit is at least one and at most the ceiling."""
    concurrency = AdaptiveConcurrency(ceiling, known)
    started: list[float] = []
    now = 0.0
    for kind, seconds, tokens in events:
        while concurrency.delay() == 0.0:
            concurrency.take()
            started.append(now)
        now += seconds
        if kind == "a":
            concurrency.release()
            concurrency.answered(tokens, started.pop(0), now)
        else:
            concurrency.refused(started.pop(), now)
            concurrency.release()
        assert 1 <= int(concurrency.allowed) <= ceiling
        assert concurrency.in_flight == len(started)


class HandClock:
    """A clock that a test moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(clock: HandClock, pace: AdaptiveRate, seconds: float) -> int:
    """Count the requests that the pace lets out in this many seconds."""
    sent = 0
    end = clock.now + seconds
    while clock.now + (wait := pace.delay(ONE)) < end:
        clock.now += wait
        pace.take(ONE)
        sent += 1
        if pace.rate == math.inf:
            clock.now += 0.01
    clock.now = end
    return sent


def test_no_pace_until_a_refusal() -> None:
    """Before the first refusal there is no pace; after it the rate is the accepted one less a twentieth."""
    clock = HandClock()
    pace = AdaptiveRate(clock)
    assert paced(clock, pace, 10) == pytest.approx(1000, abs=2)
    assert pace.found is None
    pace.refused(clock.now - 0.01)
    assert pace.rate == pytest.approx(95, rel=0.02)
    assert paced(clock, pace, 1) == pytest.approx(95, abs=4)


def test_the_curve() -> None:
    """The rate recovers, rests, and then grows faster and faster: 40 % above after three times as long."""
    clock = HandClock()
    pace = AdaptiveRate(clock)
    paced(clock, pace, 10)
    pace.refused(clock.now - 0.01)
    accepted = pace.found
    assert accepted is not None
    rates = []
    for _ in range(9):
        rates.append(pace.rate * 60 / accepted)
        clock.now += 1.0
    assert rates[2] == pytest.approx(1.0)
    assert rates[4] == pytest.approx(1.05)
    assert rates[6] == pytest.approx(1.4)
    assert rates == sorted(rates)


def test_one_lowering_per_round_trip() -> None:
    """Refusals of requests that were sent before the rate was lowered do not lower it again."""
    clock = HandClock()
    pace = AdaptiveRate(clock)
    paced(clock, pace, 10)
    sent = clock.now - 0.01
    pace.refused(sent)
    rate = pace.rate
    for _ in range(10):
        pace.refused(sent)
    assert pace.rate == rate


def test_a_pace_begins_at_what_an_earlier_run_found() -> None:
    """A rate known from an earlier run is held from the first request on."""
    clock = HandClock()
    pace = AdaptiveRate(clock, known=120)
    assert pace.rate == pytest.approx(2.0)
    assert paced(clock, pace, 10) <= 21
