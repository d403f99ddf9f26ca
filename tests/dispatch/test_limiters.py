"""Limits are held, and used."""

import math

from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.limiters import Concurrency, RequestPace, TokenPace
from batch.dispatch.request import Cost


class HandClock:
    """Time moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


ONE = Cost(1, 0)


def starts(pace: RequestPace, clock: HandClock, seconds: float, late: float) -> list[float]:
    """Start times of a client with work always waiting whose timers are `late` seconds late."""
    times = []
    while clock.at < seconds:
        wait = pace.delay(ONE)
        if wait > 0:
            clock.at += wait + late
        else:
            pace.take(ONE)
            times.append(clock.at)
    return times


@given(rpm=st.sampled_from([1, 7, 60, 140, 150, 600, 6000]), late=st.floats(0, 0.004))
def test_no_minute_holds_more_than_rpm_and_at_least_98_percent_of_it(rpm: int, late: float) -> None:
    """Without a stated burst no minute sees more than `rpm` requests, and work that waits gets 98 % of them."""
    clock = HandClock()
    times = starts(RequestPace(rpm, None, clock), clock, 125.0, late)
    first = 0
    for last, time in enumerate(times):
        while times[first] <= time - 60.0:
            first += 1
        assert last - first + 1 <= rpm
    sent = sum(1 for t in times if t < 120.0)
    assert sent >= math.floor(0.98 * 2 * rpm)


@given(burst=st.integers(1, 50), rpm=st.integers(60, 6000))
def test_a_stated_burst_goes_out_at_once_and_then_the_pace_holds(burst: int, rpm: int) -> None:
    """Exactly `burst` requests start at once, and the next one after one interval."""
    clock = HandClock()
    pace = RequestPace(rpm, burst, clock)
    for _ in range(burst):
        assert pace.delay(ONE) == 0.0
        pace.take(ONE)
    assert math.isclose(pace.delay(ONE), 60 / rpm, rel_tol=1e-6)


def test_tokens_are_reserved_before_and_corrected_after() -> None:
    """What an answer did not use goes back, so the pace follows the tokens really used."""
    clock = HandClock()
    pace = TokenPace(60_000, clock)
    used = 0
    while clock.at < 600:
        reserved = Cost(1, 900)
        clock.at += pace.delay(reserved)
        pace.take(reserved)
        pace.settle(reserved, Cost(1, 300))
        used += 300
    assert 0.97 * 600_000 <= used <= 600_000 + 1000


def test_a_request_larger_than_the_bucket_goes_out_and_the_next_one_pays() -> None:
    """A request above the burst is not stuck for ever, and leaves a debt."""
    clock = HandClock()
    pace = TokenPace(6_000, clock)
    large = Cost(1, 5_000)
    assert pace.delay(large) == 0.0
    pace.take(large)
    assert 45 < pace.delay(Cost(1, 1)) < 60


def test_concurrency_falls_once_per_round_trip_and_grows_back() -> None:
    """Sixty-four refusals of one round trip count as one; good answers raise the ceiling again."""
    limit = Concurrency(64)
    for _ in range(64):
        limit.take(ONE)
    assert limit.delay(ONE) == math.inf
    for _ in range(64):
        limit.refused()
        limit.settle(ONE, ONE)
    assert int(limit.allowed) == 44
    for _ in range(64 * 64):
        limit.answered()
    assert limit.allowed == 64
