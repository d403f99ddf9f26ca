"""The real dispatcher sends rows to servers written as functions, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest

from batch.dispatch.budget import Pricing
from batch.dispatch.dispatcher import DispatchEnd, Dispatcher
from batch.dispatch.judging.refusals import PROBES, REFUSED_ROWS
from batch.dispatch.ports import History
from batch.dispatch.request import Completion, Request
from batch.errors import (
    BadRequest,
    ConnectionLost,
    NotConnected,
    RateLimited,
    Refused,
    ServerError,
    StorageError,
)
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import Behaviour, answer
from tests.virtual_time import run


def model(name: str, endpoints: int = 1, **limits: Any) -> ModelSpec:
    return ModelSpec(
        name=name,
        endpoints=tuple(
            EndpointSpec(url=f"http://{name}{i}/v1", model=name, limits=LimitsSpec(**limits)) for i in range(endpoints)
        ),
    )


async def dispatch(
    work: MemoryWork,
    behaviour: Behaviour,
    models: list[ModelSpec],
    spec: DispatchSpec | None = None,
    also: Callable[[Dispatcher], None] = lambda d: None,
    **options: Any,
) -> DispatchEnd:
    dispatcher = built(work, behaviour, models, spec, **options)
    for shard in sorted({s for s, _ in work.rows}):
        dispatcher.feed(shard)
    dispatcher.close_feed()
    also(dispatcher)
    end = await dispatcher.run()
    assert all(lane.pool.in_flight == 0 and lane.pool.waiting == 0 for lane in dispatcher.lanes.values())
    assert all(journal.closed for journal in work.journals)
    return end


async def slow_yes(request: Request, endpoint: EndpointSpec) -> Completion:
    await asyncio.sleep(0.5)
    return answer()


def test_every_row_has_one_outcome_and_every_intent_precedes_it() -> None:
    """All rows of two shards and two lanes end ok, and each intent is journaled before its outcome."""
    work = MemoryWork(
        {(s, m): list(range(1000 * s + b, 1000 * s + b + 300)) for s in (0, 1) for m, b in (("a", 0), ("b", 500))}
    )
    done: list[int] = []
    end = run(dispatch(work, slow_yes, [model("a", 2), model("b")], on_shard=done.append))
    assert end == DispatchEnd(False, (), ())
    assert len(work.outcomes) == 1200
    assert {o.status for o in work.outcomes.values()} == {"ok"}
    assert sorted(done) == [0, 1]
    first: dict[tuple[int, str], int] = {}
    for position, (kind, row) in enumerate(work.events):
        first.setdefault((row, kind), position)
    assert all(first[row, "intent"] < first[row, "ok"] for row in work.outcomes)


def test_the_server_sees_its_rate_and_no_more() -> None:
    """With 600 requests per minute, no minute sees more than 600, and at least 98 % of them are used."""
    arrivals: list[float] = []

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        arrivals.append(asyncio.get_running_loop().time())
        return await slow_yes(request, endpoint)

    run(dispatch(MemoryWork({(0, "a"): list(range(1800))}), server, [model("a", rpm=600)]))
    span = arrivals[-1] - arrivals[0]
    assert 1799 / span * 60 >= 0.98 * 600
    assert all(b - a >= 60 - 1e-6 for a, b in zip(arrivals, arrivals[600:], strict=False))


def test_no_more_in_flight_than_allowed() -> None:
    """The most requests that the server sees at once are exactly `max_in_flight`."""
    now = peak = 0

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal now, peak
        now += 1
        peak = max(peak, now)
        await asyncio.sleep(1)
        now -= 1
        return answer()

    run(dispatch(MemoryWork({(0, "a"): list(range(100))}), server, [model("a", max_in_flight=7)]))
    assert peak == 7


def test_a_failure_prefers_another_endpoint() -> None:
    """After a 500 the same row goes to the other endpoint."""
    tried: dict[int, list[str]] = {}

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        tried.setdefault(request.row, []).append(endpoint.url or "")
        if request.row % 10 == 0 and len(tried[request.row]) == 1:
            raise ServerError("HTTP 500", status=500)
        return await slow_yes(request, endpoint)

    run(dispatch(MemoryWork({(0, "a"): list(range(40))}), server, [model("a", 2, max_in_flight=64)]))
    assert all(len(set(tried[row])) == len(tried[row]) == 2 for row in range(0, 40, 10))


def test_a_row_is_given_up_after_max_attempts_and_keeps_its_error() -> None:
    """A row that gets a 500 six times fails, with six attempts and the last error."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        if request.row == 3:
            raise ServerError("HTTP 500", status=500)
        return answer()

    work = MemoryWork({(0, "a"): list(range(10))})
    run(dispatch(work, server, [model("a", 2)]))
    bad = work.outcomes[3]
    assert (bad.status, bad.attempts) == ("failed", 6)
    assert bad.error is not None
    assert (bad.error.kind, bad.error.status) == ("server_error", 500)
    assert Counter(o.status for o in work.outcomes.values()) == {"ok": 9, "failed": 1}


def test_a_bad_request_is_not_tried_again() -> None:
    """A 400 is the row's own fault, so the row has one attempt."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        raise BadRequest("HTTP 400", status=400)

    work = MemoryWork({(0, "a"): [0]})
    run(dispatch(work, server, [model("a", 2)]))
    assert work.outcomes[0].attempts == 1


def test_retry_after_is_obeyed_whatever_its_length() -> None:
    """An endpoint that sends `retry-after: 90` gets no request for 90 s, while the other endpoint works on."""
    seen: dict[str, list[float]] = {}

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        now = asyncio.get_running_loop().time()
        calls = seen.setdefault(endpoint.url or "", [])
        calls.append(now)
        if endpoint.url == "http://a0/v1" and len(calls) == 3:
            raise RateLimited("HTTP 429", status=429, retry_after=90.0)
        return await slow_yes(request, endpoint)

    run(dispatch(MemoryWork({(0, "a"): list(range(400))}), server, [model("a", 2, max_in_flight=1)]))
    limited = seen["http://a0/v1"]
    assert limited[3] - limited[2] >= 90
    assert sum(limited[2] < t < limited[2] + 90 for t in seen["http://a1/v1"]) > 150


def test_throttling_alone_loses_no_row() -> None:
    """The server accepts 20 requests per second, which the job does not configure, and refuses the rest; every row is
    answered.
    """
    tokens, stamp = 20.0, 1000.0

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal tokens, stamp
        now = asyncio.get_running_loop().time()
        tokens, stamp = min(20.0, tokens + (now - stamp) * 20), now
        if tokens < 1:
            raise RateLimited("HTTP 429", status=429, retry_after=1.0)
        tokens -= 1
        return await slow_yes(request, endpoint)

    work = MemoryWork({(0, "a"): list(range(1000))})
    run(dispatch(work, server, [model("a", max_in_flight=64)]))
    assert Counter(o.status for o in work.outcomes.values()) == {"ok": 1000}


def test_no_connection_is_no_attempt_and_a_dead_server_is_waited_for() -> None:
    """A server that is down for a minute costs no row an attempt, and sees at most 14 connection attempts meanwhile."""
    knocks = 0

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal knocks
        if asyncio.get_running_loop().time() < 1060:
            knocks += 1
            raise NotConnected("no connection")
        return await slow_yes(request, endpoint)

    work = MemoryWork({(0, "a"): list(range(200))})
    run(dispatch(work, server, [model("a", max_in_flight=8)]))
    assert {(o.status, o.attempts) for o in work.outcomes.values()} == {("ok", 1)}
    assert knocks <= 8 + 6


def test_a_dead_pool_stalls_its_lane_only() -> None:
    """If one model is never reachable, the other lane ends; the dead one is reported as stalled, its rows stay open."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        if endpoint.model == "a":
            raise NotConnected("no connection")
        return await slow_yes(request, endpoint)

    work = MemoryWork({(0, "a"): list(range(100)), (0, "b"): list(range(100, 200))})
    end = run(dispatch(work, server, [model("a"), model("b")]))
    assert len(end.stalled) == 1
    assert sorted(work.outcomes) == list(range(100, 200))


def test_an_endpoint_that_refuses_for_good_is_asked_few_times() -> None:
    """One endpoint refuses its key: after ten different rows it is out, and the other endpoint answers them."""
    calls: Counter[str] = Counter()

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        calls[endpoint.url or ""] += 1
        if endpoint.url == "http://a0/v1":
            raise Refused("HTTP 401: invalid_api_key", status=401)
        return await slow_yes(request, endpoint)

    work = MemoryWork({(0, "a"): list(range(100))})
    end = run(dispatch(work, server, [model("a", 2, max_in_flight=1)]))
    assert calls["http://a0/v1"] == REFUSED_ROWS + PROBES
    assert {(o.status, o.attempts) for o in work.outcomes.values()} <= {("ok", 1), ("ok", 2)}
    (note,) = end.notes
    assert note.startswith("a: http://a0/v1 was out for the rest of the run: it refused 10 different rows")
    assert note.endswith(": HTTP 401: invalid_api_key")


def test_a_refusing_pool_hands_its_rows_to_the_fallback_or_leaves_them_unsent() -> None:
    """With a fallback every row is answered there; without one every row is unsent, with the refusal as its error."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        if endpoint.model == "a":
            raise Refused("HTTP 402", status=402)
        return await slow_yes(request, endpoint)

    work = MemoryWork({(0, "a"): list(range(50)), (0, "b"): [50]})
    run(dispatch(work, server, [model("a"), model("b")], DispatchSpec(fallbacks={"a": ("b",)})))
    assert {(o.status, o.journal) for o in work.outcomes.values()} == {("ok", "b")}
    work = MemoryWork({(0, "a"): list(range(50)), (0, "b"): [50]})
    run(dispatch(work, server, [model("a"), model("b")]))
    assert Counter(o.status for o in work.outcomes.values()) == {"unsent": 50, "ok": 1}
    assert {o.error.kind for o in work.outcomes.values() if o.error} == {"refused"}


def test_lanes_do_not_wait_for_each_other_and_read_only_what_they_send() -> None:
    """While one pool hangs, the other lane keeps its full rate, and only the look-ahead of the hanging lane is read."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        await asyncio.sleep(3600 if endpoint.model == "a" else 0.5)
        return answer()

    work = MemoryWork({(0, "a"): list(range(6400)), (1, "b"): list(range(10_000, 16_400))})
    finished: dict[int, float] = {}

    def watch(dispatcher: Dispatcher) -> None:
        asyncio.get_running_loop().call_later(600, dispatcher.drain)

    def done(shard: int) -> None:
        finished[shard] = asyncio.get_running_loop().time() - 1000

    models = [model("a", max_in_flight=64), model("b", max_in_flight=64)]
    end = run(dispatch(work, server, models, also=watch, on_shard=done))
    assert end.interrupted
    assert finished == {1: 50.0}
    # All batches of the lane that works, and those in the look-ahead of the lane that hangs.
    assert work.batches_read == 100 + 64 * 64 // 64


def test_a_drain_lets_what_is_in_flight_end_and_starts_nothing_new() -> None:
    """After a drain at 0.7 s the requests in flight end and are journaled, and no other row is sent."""
    work = MemoryWork({(0, "a"): list(range(1000))})

    def watch(dispatcher: Dispatcher) -> None:
        asyncio.get_running_loop().call_later(0.7, dispatcher.drain)

    end = run(dispatch(work, slow_yes, [model("a", max_in_flight=10)], also=watch))
    assert end.interrupted
    assert len(work.outcomes) == 20
    assert sum(kind == "intent" for kind, _ in work.events) == 20


def test_an_outcome_that_cannot_be_stored_stops_the_run() -> None:
    """A full disk ends the run with `StorageError` after at most ten more requests."""
    work = MemoryWork({(0, "a"): list(range(1000))}, fail_on=30)
    with pytest.raises(StorageError):
        run(dispatch(work, slow_yes, [model("a", max_in_flight=10)]))
    assert sum(kind == "intent" for kind, _ in work.events) <= 40


def test_rows_with_an_outcome_are_not_sent_again_and_ambiguous_ones_follow_the_spec() -> None:
    """Finished rows are skipped; an ambiguous row is sent again or fails, depending on `on_ambiguous`."""
    history = History({}, finished={0, 1}, sent={2: 1}, ambiguous={2: "http://a0/v1"})
    work = MemoryWork({(0, "a"): [0, 1, 2, 3]}, histories={0: history})
    run(dispatch(work, slow_yes, [model("a")]))
    assert {r: (o.status, o.attempts) for r, o in work.outcomes.items()} == {2: ("ok", 2), 3: ("ok", 1)}
    work = MemoryWork({(0, "a"): [0, 1, 2, 3]}, histories={0: history})
    run(dispatch(work, slow_yes, [model("a")], DispatchSpec(on_ambiguous="fail")))
    assert {r: o.status for r, o in work.outcomes.items()} == {2: "failed", 3: "ok"}


def test_a_budget_is_never_overshot_and_what_does_not_fit_is_unsent() -> None:
    """With a budget of $1 and rows of at most $0.10, the money spent at the server is never more than $1."""
    price = Decimal("0.005")
    spent = Decimal(0)

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal spent
        await asyncio.sleep(0.5)
        if request.row % 7 == 0:
            raise ConnectionLost("broken")
        spent += 15 * price
        assert spent <= 1
        return answer(10, 5)

    def bound(request: Request) -> Decimal:
        return (request.prompt_tokens + (request.max_tokens or 0)) * price

    def cost(prompt: int | None, completion: int | None) -> Decimal | None:
        return None if prompt is None or completion is None else (prompt + completion) * price

    work = MemoryWork({(0, "a"): list(range(1, 60))})
    spec = DispatchSpec(budget_usd=Decimal(1), max_attempts=1)
    run(dispatch(work, server, [model("a")], spec, pricing={"a": Pricing(bound, cost)}))
    counts = Counter(o.status for o in work.outcomes.values())
    assert counts["unsent"] > 30
    assert counts["ok"] >= 8
    # A broken connection may have been billed, so its reservation counts as spent.
    assert spent + counts["failed"] * Decimal("0.1") <= 1


def test_cancelling_everything_leaves_nothing_held() -> None:
    """When a run is cancelled, no slot stays taken and no request waits."""
    work = MemoryWork({(0, "a"): list(range(1000))})
    held: list[Dispatcher] = []

    async def main() -> None:
        task = asyncio.create_task(dispatch(work, slow_yes, [model("a", max_in_flight=10, rpm=600)], also=held.append))
        await asyncio.sleep(2.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    pool = held[0].lanes["a"].pool
    assert (pool.in_flight, pool.waiting) == (0, 0)
    assert repr(pool) == "EndpointPool(1 endpoints, 0 in flight, 0 waiting)"


def test_an_answer_in_place_of_a_cancellation_is_kept_and_nothing_more_is_sent() -> None:
    """A transport returns answers although it is cancelled: they are stored, nothing more is sent, and the run ends."""
    work = MemoryWork({(0, "a"): list(range(1000))})

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.5)
        return answer()

    async def main() -> None:
        task = asyncio.create_task(dispatch(work, server, [model("a", max_in_flight=10)]))
        await asyncio.sleep(0.75)
        sent = sum(kind == "intent" for kind, _ in work.events)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)
        assert len(work.outcomes) == sent == sum(kind == "intent" for kind, _ in work.events)

    run(main())
