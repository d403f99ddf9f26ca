"""The pool, in virtual time: it serves waiting requests in order, and holds nothing when one of them ends early."""

import asyncio
from contextlib import suppress
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from batch.dispatch.balancing.balancers import build_balancer
from batch.dispatch.budget import Budget, Pricing
from batch.dispatch.health import FIRST_COOLDOWN_SECONDS, State
from batch.dispatch.judging.patience import Patience
from batch.dispatch.judging.refusals import PROBES, REFUSED_ROWS
from batch.dispatch.pool import EndpointPool, OverBudget, PoolOut
from batch.errors import BadAnswer, ConnectionLost, NotConnected, RateLimited, Refused, ServerError, TimedOut
from schemas.endpoints import EndpointSpec, LimitsSpec
from tests.fakes import answer, fake_endpoint, request
from tests.virtual_time import run

DOLLAR = Pricing(lambda asked: Decimal(1), lambda prompt, completion: None if completion is None else Decimal("0.25"))


def pool_of(count: int = 1, *, budget: Budget | None = None, **limits: Any) -> EndpointPool:
    loop = asyncio.get_running_loop()
    random = Random(0)
    return EndpointPool(
        "m",
        [
            fake_endpoint(EndpointSpec(url=f"http://e{i}/v1", limits=LimitsSpec(**limits)), i, loop.time, random)
            for i in range(count)
        ],
        build_balancer("least_connections", random),
        patience=Patience(loop.time, lambda: 0.0, 60),
        budget=budget,
        pricing=DOLLAR if budget is not None else None,
    )


async def settle() -> None:
    """Let all tasks run that need not wait for time to pass."""
    for _ in range(5):
        await asyncio.sleep(0)


def assert_nothing_is_held(pool: EndpointPool) -> None:
    assert (pool.in_flight, pool.waiting) == (0, 0)
    assert pool.budget is None or pool.budget.reserved == 0


def test_requests_are_served_in_the_order_of_asking() -> None:
    """Twenty requests get the only slot in the order in which they asked for it."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1)
        served: list[int] = []

        async def one(row: int) -> None:
            async with pool.lease(request(row)) as lease:
                served.append(row)
                await asyncio.sleep(1)
                lease.completed(answer())

        await asyncio.gather(*(one(row) for row in range(20)))
        assert served == list(range(20))
        assert_nothing_is_held(pool)

    run(test())


def test_a_small_request_does_not_pass_a_large_one() -> None:
    """A request that waits for tokens is served before later, smaller ones that would fit."""

    async def test() -> None:
        pool = pool_of(tpm=6000, max_in_flight=10)
        served: list[int] = []

        async def one(row: int, tokens: int) -> None:
            async with pool.lease(request(row, prompt_tokens=tokens, max_tokens=0)) as lease:
                served.append(row)
                lease.completed(answer(tokens, 0))

        await asyncio.gather(one(0, 100), one(1, 100), *(one(row, 1) for row in range(2, 8)))
        assert served == list(range(8))

    run(test())


def test_a_waiter_that_is_cancelled_holds_nothing_and_blocks_no_other() -> None:
    """The requests behind a cancelled one are served as if it had not been there."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1)
        first = (await pool.acquire(request(0)))[0]
        waiters = [asyncio.create_task(pool.acquire(request(row))) for row in (1, 2, 3)]
        await settle()
        assert pool.waiting == 3
        waiters[0].cancel()
        waiters[1].cancel()
        await settle()
        assert pool.waiting == 1
        pool.release(request(0), first, answer())
        endpoint, _ = await waiters[2]
        pool.release(request(3), endpoint, answer())
        assert_nothing_is_held(pool)

    run(test())


def test_a_waiter_cancelled_in_the_very_turn_it_is_served_gives_it_on() -> None:
    """The slot of the cancelled request goes to the next one in line, and its reserved money is returned."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1, budget=Budget(Decimal(10)))
        asked = request(0)
        first = (await pool.acquire(asked))[0]
        second, third = (asyncio.create_task(pool.acquire(request(row))) for row in (1, 2))
        await settle()
        pool.release(asked, first, answer())
        second.cancel()
        endpoint, taken = await third
        with pytest.raises(asyncio.CancelledError):
            await second
        assert pool.in_flight == 1
        pool.release(taken, endpoint, answer())
        assert_nothing_is_held(pool)
        assert pool.budget is not None
        assert pool.budget.spent == Decimal("0.5")

    run(test())


def test_a_lease_that_is_cancelled_counts_as_billed() -> None:
    """A cancelled request frees its slot, but its money counts as spent, since the server may have done the work."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1, budget=Budget(Decimal(10)))

        async def hold() -> None:
            async with pool.lease(request()):
                await asyncio.sleep(100)

        holding = asyncio.create_task(hold())
        await settle()
        assert pool.in_flight == 1
        holding.cancel()
        await settle()
        assert_nothing_is_held(pool)
        assert pool.budget is not None
        assert pool.budget.spent == 1

    run(test())


def test_only_one_request_probes() -> None:
    """After a cooldown one of ten waiting requests is sent; after its answer the others follow, first one by one and
    then all of them.
    """

    async def test() -> None:
        pool = pool_of(max_in_flight=10)
        endpoint = (await pool.acquire(request()))[0]
        pool.release(request(), endpoint, NotConnected("x"))
        waiters = [asyncio.create_task(pool.acquire(request(row))) for row in range(10)]
        await asyncio.sleep(FIRST_COOLDOWN_SECONDS * 0.9)
        assert pool.in_flight == 0
        await asyncio.sleep(FIRST_COOLDOWN_SECONDS)
        assert (pool.in_flight, pool.waiting, endpoint.health.state) == (1, 9, State.PROBING)
        (probe,) = [waiter.result()[1] for waiter in waiters if waiter.done()]
        pool.release(probe, endpoint, answer())
        await settle()
        assert (pool.in_flight, pool.waiting) == (1, 8)
        await asyncio.sleep(FIRST_COOLDOWN_SECONDS * 2)
        assert (pool.in_flight, pool.waiting) == (9, 0)
        await asyncio.gather(*waiters)

    run(test())


def test_a_cancelled_probe_lets_the_next_one_probe() -> None:
    """After a probe is cancelled, a waiting request becomes the next probe and does not wait forever."""

    async def test() -> None:
        pool = pool_of(max_in_flight=10)
        endpoint = (await pool.acquire(request()))[0]
        pool.release(request(), endpoint, NotConnected("x"))
        await asyncio.sleep(FIRST_COOLDOWN_SECONDS)
        probe = (await pool.acquire(request()))[0]
        waiter = asyncio.create_task(pool.acquire(request(1)))
        await settle()
        assert not waiter.done()
        pool.release(request(), probe, None)
        assert (await waiter)[0] is endpoint

    run(test())


def test_a_pause_is_kept_to_its_end() -> None:
    """No request is sent before `retry-after` has passed, even if the server asks for a shorter pause later."""

    async def test() -> None:
        pool = pool_of(max_in_flight=10)
        leases = [(await pool.acquire(request(row)))[0] for row in range(2)]
        start = asyncio.get_running_loop().time()
        pool.release(request(0), leases[0], RateLimited("x", retry_after=30))
        pool.release(request(1), leases[1], RateLimited("x", retry_after=1))
        await pool.acquire(request(2))
        assert asyncio.get_running_loop().time() - start == pytest.approx(30, abs=0.01)

    run(test())


def test_a_row_prefers_an_endpoint_that_has_not_failed_it() -> None:
    """A row is sent to an endpoint that failed it only if no other one is ready."""

    async def test() -> None:
        pool = pool_of(2, max_in_flight=1)
        asked = request()
        asked.avoid = 1 << 0
        assert (await pool.acquire(asked))[0].index == 1
        assert (await pool.acquire(asked))[0].index == 0

    run(test())


def test_a_pool_whose_endpoints_all_refuse_says_why() -> None:
    """Once enough different rows were refused, waiting and later requests raise `PoolOut` with the refusal."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1)
        endpoint = (await pool.acquire(request()))[0]
        pool.release(request(0), endpoint, Refused("HTTP 401: invalid_api_key"))
        for row in range(1, REFUSED_ROWS + PROBES):
            _, asked = await pool.acquire(request(row))
            waiting = [asyncio.create_task(pool.acquire(request(row))) for row in (101, 102)]
            await settle()
            if row < REFUSED_ROWS + PROBES - 1:
                for waiter in waiting:
                    waiter.cancel()
                await settle()
            pool.release(asked, endpoint, Refused("HTTP 401: invalid_api_key"))
        for waiter in waiting:
            with pytest.raises(PoolOut, match="invalid_api_key"):
                await waiter
        with pytest.raises(PoolOut):
            await pool.acquire(request())
        assert_nothing_is_held(pool)

    run(test())


def test_a_pool_that_cannot_be_reached_is_given_up() -> None:
    """The pool gives up after 60 seconds without a connection and not before, even with one request at a time."""

    async def test() -> None:
        pool = pool_of(2)
        start = asyncio.get_running_loop().time()

        async def knock_for_ever() -> None:
            while True:
                with suppress(NotConnected):
                    async with pool.lease(request()):
                        raise NotConnected("x")

        with pytest.raises(match="60 seconds"):
            await knock_for_ever()
        assert asyncio.get_running_loop().time() - start >= 60
        assert_nothing_is_held(pool)

    run(test())


@pytest.mark.parametrize(
    ("error", "charged"),
    [
        (ServerError("x", status=500), 0),
        (RateLimited("x", status=429), 0),
        (NotConnected("x"), 0),
        (TimedOut("x"), 1),
        (ConnectionLost("x"), 1),
        (ServerError("x", status=502), 1),
        (ServerError("x", status=524), 1),
        (BadAnswer("x", status=200), 1),
        (BadAnswer("x", status=200, usage=(10, 5)), Decimal("0.25")),
        (BadAnswer("x", status=200, usage=(10, None)), 1),
        (RateLimited("x", status=429, usage=(10, 0)), Decimal("0.25")),
    ],
)
def test_money_is_returned_if_nothing_can_have_been_billed(error: Exception, charged: int) -> None:
    """A refusal costs nothing, an attempt with usage costs that, and one that may have been billed its full bound."""

    async def test() -> None:
        pool = pool_of(budget=Budget(Decimal(10)))

        async def attempt() -> None:
            async with pool.lease(request()):
                raise error

        with pytest.raises(type(error)):
            await attempt()
        assert pool.budget is not None
        assert pool.budget.spent == charged
        assert pool.budget.reserved == 0

    run(test())


def test_where_answers_cost_more_than_their_bound_the_bound_is_raised() -> None:
    """When an answer costs more than its bound, later requests reserve as much as that answer cost."""

    async def test() -> None:
        pool = pool_of(max_in_flight=1, budget=Budget(Decimal(10)))
        pool.pricing = Pricing(lambda asked: Decimal(1), lambda prompt, completion: Decimal(4))
        for _ in range(2):
            async with pool.lease(request()) as lease:
                lease.completed(answer())
        assert pool.budget is not None
        assert pool.budget.spent == 8
        with pytest.raises(OverBudget):
            pool.take(request())

    run(test())


def test_a_cap_below_what_is_spent_already_sends_nothing() -> None:
    """If the cap was lowered below what is spent already, no request is sent, not even one that costs nothing."""

    async def test() -> None:
        for bound in (Decimal(1), Decimal(0)):
            pool = pool_of(budget=Budget(Decimal(2), spent=Decimal("2.5")))
            pool.pricing = Pricing(lambda asked, bound=bound: bound, lambda prompt, completion: Decimal(0))  # type: ignore[misc]
            with pytest.raises(OverBudget):
                async with pool.lease(request()):
                    pass
            assert_nothing_is_held(pool)

    run(test())


def test_the_cap_holds_however_many_ask_at_once() -> None:
    """With $2.50 and requests of at most $1 the cap holds at every moment, and unused money is spent on later ones."""

    async def test() -> None:
        pool = pool_of(max_in_flight=100, budget=Budget(Decimal("2.5")))
        assert pool.budget is not None
        budget = pool.budget
        ended: list[str] = []

        async def one(row: int) -> None:
            try:
                async with pool.lease(request(row)) as lease:
                    assert budget.spent + budget.reserved <= budget.cap
                    await asyncio.sleep(1)
                    lease.completed(answer())
            except OverBudget:
                ended.append("over")
            else:
                ended.append("ok")

        await asyncio.gather(*(one(row) for row in range(20)))
        # Each costs $0.25; after seven, $0.75 is left, and no request of at most $1 fits.
        assert (ended.count("ok"), ended.count("over")) == (7, 13)
        assert budget.spent == Decimal("1.75")
        assert_nothing_is_held(pool)

    run(test())
