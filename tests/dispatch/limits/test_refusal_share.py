"""Some servers refuse a share of the requests at any pace; the limiter does not keep slowing down for them."""

from collections.abc import Callable
from random import Random

import pytest

from batch.dispatch.limits.adaptive_rate import AdaptiveRate
from batch.dispatch.request import LimitCost

ONE = LimitCost(1, 0, 0, 0)


class Clock:
    """A clock that the test moves by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def seconds_for(answers: int, refuses: Callable[[int, float], bool], *, most: float = 3600.0) -> float:
    """Return the seconds until `answers` requests were answered, sent one after the other.

    Args:
        refuses: whether the server refuses a request, by the request's number and the time it is sent.
        most: the seconds after which to stop.
    """
    clock = Clock()
    pace = AdaptiveRate(clock)
    sent = answered = 0
    while answered < answers and clock.now < most:
        clock.now += max(pace.delay(ONE), 0.0)
        started = clock.now
        pace.take(ONE)
        sent += 1
        refused = refuses(sent, started)
        clock.now += 0.002
        if refused:
            pace.refused(started)
            # An endpoint pauses as long after a refusal without `retry-after`.
            clock.now += 0.05
        else:
            answered += 1
    return clock.now


class Bucket:
    """Accepts `rate(now)` requests per second after a burst, refuses `share` of them by chance; records refusals."""

    def __init__(self, rate: Callable[[float], float], burst: float, share: float = 0.0) -> None:
        self.refused: list[float] = []
        self._rate = rate
        self._burst = self._level = burst
        self._share = share
        self._random = Random(1)
        self._last = 0.0

    def __call__(self, sent: int, now: float) -> bool:
        rate = self._rate(now)
        self._level = min(self._burst, self._level + rate * (now - self._last))
        self._last = now
        if self._level >= 1 and self._random.random() >= self._share:
            self._level -= 1
            return False
        self.refused.append(now)
        return True


def by_lots(share: float, seed: int) -> Callable[[int, float], bool]:
    """Refuse this share of the requests by chance, whatever the pace."""
    random = Random(seed)
    return lambda sent, now: random.random() < share


@pytest.mark.parametrize("every", [2, 3, 4, 6])
def test_refusals_by_turns_do_not_stop_a_job(every: int) -> None:
    """If every second to sixth request is refused at any pace, 30 answers take less than a minute."""
    assert seconds_for(30, lambda sent, now: sent % every == 0) < 60


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.35, 0.5])
def test_refusals_by_lots_do_not_stop_a_job(share: float) -> None:
    """If a share of the requests is refused by chance, 1,000 answers take less than 1,000 s, for each of five seeds."""
    for seed in range(5):
        assert seconds_for(1000, by_lots(share, seed)) < 1000


@pytest.mark.parametrize(
    ("rate", "burst", "answers", "seconds", "most"),
    [(10.0, 10, 3000, 330, 90), (10.0, 1, 3000, 340, 60), (1.0, 1, 300, 330, 40), (1.0, 60, 300, 270, 90)],
)
def test_limits_that_a_lower_pace_satisfies_are_kept(
    rate: float, burst: float, answers: int, seconds: float, most: int
) -> None:
    """A server with a real limit is sent requests at about that rate, and refuses few of them."""
    server = Bucket(lambda now: rate, burst)
    assert seconds_for(answers, server) < seconds
    assert len(server.refused) < most


@pytest.mark.parametrize("rate", [1.0, 3.0, 5.0])
def test_a_server_that_gets_slower_is_followed_down(rate: float) -> None:
    """A server's limit falls from ten requests per second after a minute; from a minute later on, it refuses less than
    12 % of what it accepts.
    """
    server = Bucket(lambda now: 10.0 if now < 60 else rate, 10)
    answers = 600 + int(300 * rate)
    assert seconds_for(answers, server) < 60 + 300 * 1.15
    assert sum(at > 120 for at in server.refused) < 0.12 * 300 * rate


def test_a_limit_behind_chance_is_found() -> None:
    """If the server refuses 30 % by chance and accepts at most ten per second, about ten per second are accepted."""
    server = Bucket(lambda now: 10.0, 5, share=0.3)
    assert seconds_for(3000, server) < 360
    # The refusals by chance alone would be 1,286.
    assert len(server.refused) < 2500


def test_a_limit_that_arrives_ends_the_overlooking() -> None:
    """A server refuses a third by chance for a minute, then has a limit of two per second, which the pace follows."""
    lots, bucket = by_lots(1 / 3, 1), Bucket(lambda now: 2.0, 2)
    late: list[float] = []

    def server(sent: int, now: float) -> bool:
        if now < 60:
            return lots(sent, now)
        refused = bucket(sent, now)
        if refused and now > 120:
            late.append(now)
        return refused

    answers, clock_end = 0, 360.0

    def counted(sent: int, now: float) -> bool:
        nonlocal answers
        refused = server(sent, now)
        answers += not refused and 120 < now < clock_end
        return refused

    seconds_for(10**9, counted, most=clock_end)
    assert answers > 0.85 * 2 * 240
    assert len(late) < 0.12 * 2 * 240


def test_without_refusals_the_pace_is_given_back() -> None:
    """Once a server that refused a third by chance stops refusing, the pace grows beyond the one held before."""
    lots = by_lots(1 / 3, 2)
    assert seconds_for(20_000, lambda sent, now: now < 20 and lots(sent, now)) < 20 + 240
