"""Endpoints that fail, die, return and throttle: what the servers see of the dispatcher."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest

from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.health import COOLDOWN_SECONDS, FAILURES_IN_A_ROW, SLOW_START_SECONDS
from batch.dispatch.judging.refusals import PROBES, REFUSED_ROWS
from batch.dispatch.request import Completion
from batch.errors import ConnectionLost, DispatchError, NotConnected, RateLimited, Refused, ServerError
from batch.limits import LearnedLimits
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.job import DispatchSpec
from tests.fakes import answer
from tests.simulation.pools import Answers, Row, Server, answering, failing, simulate

ROW = Row(100, 50, 100)


def server(name: str, behaviour: Answers, **limits: float) -> Server:
    return Server(EndpointSpec(url=f"http://{name}/v1", model="m", limits=LimitsSpec.model_validate(limits)), behaviour)


def down(start: float, end: float, error: Callable[[], DispatchError], seconds: float) -> Answers:
    """A server that answers in half a second, and from `start` to `end` fails; what is in flight at `start` is lost."""

    async def behave(server: Server, row: Row) -> Completion:
        loop = asyncio.get_running_loop()
        now = loop.time() - 1000.0
        if start <= now < end:
            await asyncio.sleep(seconds)
            raise error()
        if now < start < now + 0.5:
            await asyncio.sleep(start - now)
            raise ConnectionLost("x")
        await asyncio.sleep(0.5)
        return answer(row.prompt, row.answer)

    return behave


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (lambda: NotConnected("x"), 0.001),
        (lambda: ServerError("x", status=503), 0.01),
        (lambda: ConnectionLost("x"), 5.0),
    ],
)
@pytest.mark.parametrize("limits", [{"rpm": 1200}, {"max_in_flight": 10}])
def test_an_endpoint_that_dies_and_returns(
    error: Callable[[], DispatchError], seconds: float, limits: dict[str, float]
) -> None:
    """When one of three endpoints dies, the others keep 97 % of their rate, and no row is lost.

    Once five requests have failed, the dead endpoint gets at most one probe in ten seconds, apart from requests then
    in flight. Within 15 seconds of its return it has 95 % of its share again.
    """
    dies, returns, total = 60.0, 120.0, 200.0
    rate = 20.0
    dead = server("dead", down(dies, returns, error, seconds), **limits)
    others = [server(f"e{i}", answering(0.5, 0.0), **limits) for i in range(2)]
    outcome = simulate({"m": [dead, *others]}, {"m": [ROW] * int((3 * total - (returns - dies)) * rate)})
    assert all(o.status == "ok" for o in outcome.work.outcomes.values())
    for other in others:
        assert other.rate(dies, returns) >= 0.97 * other.rate(5, dies)
    before = dead.rate(5, dies)
    ends = sorted(s.ended for s in dead.seen if not s.good)
    known = ends[FAILURES_IN_A_ROW - 1]
    unaware = [s for s in dead.seen if not s.good and s.started <= known]
    slots = max(10, int(0.5 * rate))
    assert len(unaware) <= FAILURES_IN_A_ROW + slots
    probes = [s.started for s in dead.arrivals(known + 1e-6, returns)]
    gaps = [b - a for a, b in pairwise(probes)]
    assert min(gaps) >= COOLDOWN_SECONDS - 0.01, probes
    assert len(probes) <= 1 + (returns - dies) / COOLDOWN_SECONDS
    back = returns + COOLDOWN_SECONDS + SLOW_START_SECONDS + 1
    assert back <= returns + 15
    assert dead.rate(back, back + 30) >= 0.95 * before


@pytest.mark.parametrize(("share", "most"), [(0.01, 1.02), (0.2, 1.30)])
def test_random_failures_cost_no_more_than_their_share(share: float, most: float) -> None:
    """Requests sent per row answered stay near 1 / (1 - share), no row is lost, and the time grows as little."""
    pools = {
        name: [
            server(
                name, failing(p, lambda: ServerError("x", status=500), answering(0.5, 0.0), Random(1)), max_in_flight=20
            )
        ]
        for name, p in (("bad", share), ("good", 0.0))
    }
    rows = [ROW] * 10_000
    spec = DispatchSpec(max_attempts=12)
    bad = simulate({"m": pools["bad"]}, {"m": rows}, spec=spec)
    good = simulate({"m": pools["good"]}, {"m": rows}, spec=spec)
    assert {o.status for o in bad.work.outcomes.values()} == {"ok"}
    assert len(pools["bad"][0].seen) <= most * len(rows)
    assert bad.seconds <= (most + 0.02) * good.seconds


def test_retry_after_pauses_its_endpoint_to_the_second_and_no_other() -> None:
    """After a 429 with a Retry-After of 90 seconds its endpoint gets no request for 90 seconds, and then works at once.

    The other endpoint's rate does not change.
    """

    async def behave(self: Server, row: Row) -> Completion:
        if len(self.seen) == 30:
            raise RateLimited("x", status=429, retry_after=90)
        await asyncio.sleep(0.2)
        return answer()

    asked = server("asked", behave, rpm=600)
    other = server("other", answering(0.2, 0.0), rpm=600)
    outcome = simulate({"m": [asked, other]}, {"m": [ROW] * 3000})
    refused = next(s.ended for s in asked.seen if not s.good)
    after = sorted(s.started for s in asked.seen if s.started > refused)
    assert 90 <= after[0] - refused <= 90.2
    assert other.rate(refused, refused + 90) >= 0.98 * 10
    assert {o.status for o in outcome.work.outcomes.values()} == {"ok"}


@pytest.mark.parametrize("status", [401, 429])
def test_a_refusal_that_waiting_cannot_cure_ends_the_endpoint(status: int) -> None:
    """Once different rows were refused, the endpoint gets five probes, one at a time; then the other takes over."""

    async def behave(self: Server, row: Row) -> Completion:
        await asyncio.sleep(0.2)
        if len(self.seen) >= 20:
            raise Refused("spent", status=status, code="insufficient_quota")
        return answer()

    spent = server("spent", behave, max_in_flight=4)
    other = server("other", answering(0.2, 0.0), max_in_flight=4)
    outcome = simulate({"m": [spent, other]}, {"m": [ROW] * 500})
    refused = [s for s in spent.seen if not s.good]
    assert len(refused) <= REFUSED_ROWS + 4 + PROBES
    assert all(a.ended <= b.started for a, b in pairwise(refused[-PROBES:]))
    assert {o.status for o in outcome.work.outcomes.values()} == {"ok"}
    assert any("spent" in note for note in outcome.end.notes)


def test_a_pool_that_is_down_is_only_probed() -> None:
    """Both endpoints are down for 100 seconds: no row fails, and each sees a handful of probes."""
    pool = [
        server(f"e{i}", down(10, 110, lambda: ServerError("x", status=503), 0.01), max_in_flight=10) for i in (0, 1)
    ]
    outcome = simulate({"m": pool}, {"m": [ROW] * 2000}, spec=DispatchSpec(timeout_seconds=600))
    assert {o.status for o in outcome.work.outcomes.values()} == {"ok"}
    for each in pool:
        assert len(each.arrivals(10, 110)) <= 10 + FAILURES_IN_A_ROW + 1 + 100 / COOLDOWN_SECONDS
    assert outcome.seconds <= 2000 / 40 + 100 + COOLDOWN_SECONDS + 2 * SLOW_START_SECONDS


def test_throttling_every_request_fails_no_row() -> None:
    """Ten minutes in which every answer is a 429 use up no row's attempts."""

    async def behave(self: Server, row: Row) -> Completion:
        await asyncio.sleep(0.05)
        if 20 <= asyncio.get_running_loop().time() - 1000.0 < 620:
            raise RateLimited("x", status=429)
        return answer()

    pool = [server("e", behave, max_in_flight=4)]
    outcome = simulate({"m": pool}, {"m": [ROW] * 5000})
    assert {o.status for o in outcome.work.outcomes.values()} == {"ok"}
    assert len(pool[0].arrivals(20, 620)) <= 100


@pytest.mark.parametrize("slots", [4, 60])
def test_a_limit_that_is_not_configured_is_found_and_reported(slots: int) -> None:
    """A server refuses whatever is beyond its slots: within a minute 95 % of the slots are in use.

    The dispatcher reports the limit that it found, for the next sitting.
    """
    found: list[LearnedLimits] = []

    async def behave(self: Server, row: Row) -> Completion:
        if self.in_flight > slots:
            raise RateLimited("x", status=429)
        await asyncio.sleep(1.0)
        return answer()

    pool = [server("e", behave)]

    def look(dispatcher: Dispatcher) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(110, lambda: found.append(dispatcher.found()["m"]["http://e/v1"]))

    simulate({"m": pool}, {"m": [ROW] * 120 * slots}, also=look)
    assert pool[0].rate(60, 110) >= 0.95 * slots
    assert sum(not s.good for s in pool[0].arrivals(60, 110)) <= 0.01 * 50 * slots + 1
    assert found[0].in_flight is not None
    assert abs(found[0].in_flight - slots) <= 1 + slots // 20


def test_rows_of_one_key_go_to_one_endpoint_while_all_are_full() -> None:
    """With `consistent_hash` and rows in random order, nine of ten rows reach an endpoint that has seen their key."""
    random = Random(2)
    keys = 64
    seen: dict[str, set[int]] = {}
    hits = total = 0

    async def behave(self: Server, row: Row) -> Completion:
        nonlocal hits, total
        known = seen.setdefault(str(self.spec.url), set())
        total += 1
        hits += row.prompt in known
        known.add(row.prompt)
        await asyncio.sleep(0.5)
        return answer()

    pool = [server(f"e{i}", behave, max_in_flight=16) for i in range(4)]
    rows = [Row(100 + random.randrange(keys), 10, 10) for _ in range(6000)]
    simulate({"m": pool}, {"m": rows}, spec=DispatchSpec(balancer="consistent_hash"))
    assert total == 6000
    assert hits >= 0.9 * (total - keys)
    shares = [len(each.seen) / total for each in pool]
    assert max(shares) <= 1.3 / 4


def test_a_chance_refusal_does_not_slow_down_a_limit_that_is_configured() -> None:
    """With one 429 in two hundred although the configured rate is held, 97 % of that rate stay in use.

    If the server allows half of the configured rate, it gets little more than that.
    """
    random = Random(4)

    async def sometimes(self: Server, row: Row) -> Completion:
        await asyncio.sleep(0.1)
        if random.random() < 0.005:
            raise RateLimited("x", status=429)
        return answer()

    pool = [server("e", sometimes, rpm=3000)]
    simulate({"m": pool}, {"m": [ROW] * 6000})
    assert pool[0].rate(5, 110) >= 0.97 * 50

    level, as_of = 10.0, 0.0

    async def half(self: Server, row: Row) -> Completion:
        nonlocal level, as_of
        now = asyncio.get_running_loop().time() - 1000.0
        level = min(10.0, level + (now - as_of) * 25)
        as_of = now
        if level < 1:
            raise RateLimited("x", status=429)
        level -= 1
        await asyncio.sleep(0.1)
        return answer()

    pool = [server("h", half, rpm=3000)]
    simulate({"m": pool}, {"m": [ROW] * 4000})
    assert pool[0].rate(30, 120) >= 0.93 * 25
    assert sum(not s.good for s in pool[0].arrivals(30, 120)) <= 0.01 * 25 * 90
