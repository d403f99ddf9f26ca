"""A semaphore bounds the bytes of the requests in flight."""

import asyncio

import pytest

from batch.dispatch.memory_gate import MOST_BYTES, ByteSemaphore
from batch.dispatch.request import Completion, Request
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.virtual_time import run


def test_a_request_that_does_not_fit_waits_its_turn() -> None:
    """Requests are served in order, also a small one behind a large one; one larger than the bound is sent alone."""

    async def test() -> None:
        scales = ByteSemaphore(most=10)
        order: list[int] = []

        async def attempt(size: int, seconds: float) -> None:
            await scales.take(size)
            order.append(size)
            await asyncio.sleep(seconds)
            scales.release(size)

        async with asyncio.TaskGroup() as group:
            for size, seconds in ((6, 1.0), (5, 1.0), (1, 1.0), (99, 1.0), (2, 1.0)):
                group.create_task(attempt(size, seconds))
            await asyncio.sleep(0.5)
            assert order == [6]
            await asyncio.sleep(1.0)
            assert order == [6, 5, 1]
            await asyncio.sleep(1.0)
            assert scales.held == 99
        assert order == [6, 5, 1, 99, 2]
        assert scales.held == 0

    run(test())


def test_cancelled_while_waiting_or_just_served_nothing_is_held() -> None:
    """A request that is cancelled while it waits, or just after it was served, holds no bytes and blocks no other."""

    async def test() -> None:
        scales = ByteSemaphore(most=10)
        await scales.take(10)
        tasks = [asyncio.create_task(scales.take(size)) for size in (7, 7, 3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        scales.release(10)
        await asyncio.sleep(0)
        assert scales.held == 10
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        late = asyncio.create_task(scales.take(1))
        await asyncio.sleep(0)
        scales.release(7)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert scales.held == 3

    run(test())


def test_long_prompts_under_way_do_not_fill_the_memory() -> None:
    """Two prompts of 100 MiB are in flight at once, and not three; a short one between them is not held up."""
    most = 0
    under_way: set[int] = set()
    ended: list[int] = []

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        nonlocal most
        under_way.add(request.row)
        most = max(most, sum(len(bodies[row]) for row in under_way))
        await asyncio.sleep(1.0)
        under_way.discard(request.row)
        ended.append(request.row)
        return answer()

    long = bytes(100 << 20)
    bodies = {row: b"{}" if row == 3 else long for row in range(7)}

    class LongPrompts(MemoryWork):
        def routed(self, shard: int, model: str):  # type: ignore[no-untyped-def]
            for batch in super().routed(shard, model):
                for request in batch:
                    request.body = bodies[request.row]
                yield batch

    async def main() -> None:
        work = LongPrompts({(0, "a"): list(bodies)})
        spec = ModelSpec(
            name="a", endpoints=(EndpointSpec(url="http://a/v1", model="a", limits=LimitsSpec(max_in_flight=64)),)
        )
        dispatcher = built(work, server, [spec])
        dispatcher.feed(0)
        dispatcher.close_feed()
        await dispatcher.run()
        assert {o.status for o in work.outcomes.values()} == {"ok"}

    run(main())
    assert 200 << 20 <= most <= MOST_BYTES
    assert 3 in ended[:3]
