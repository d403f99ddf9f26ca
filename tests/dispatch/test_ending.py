"""A dispatch ends when it is drained, when it fails, and when its last rows cannot be sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from batch.dispatch.dispatcher import DispatchEnd, Dispatcher
from batch.dispatch.request import Completion, Request
from batch.errors import BadRequest, NotConnected, RateLimited, Refused, StorageError
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.dispatch.packing.embeddings import answer as vectors
from tests.dispatch.packing.test_packed_rows import EmbeddingWork
from tests.fakes import Behaviour, answer
from tests.virtual_time import run

DRAINED_AT = 5.25


def model(name: str, **limits: Any) -> ModelSpec:
    endpoint = EndpointSpec(url=f"http://{name}/v1", model=name, limits=LimitsSpec(**limits))
    return ModelSpec(name=name, endpoints=(endpoint,))


def dispatcher(
    work: MemoryWork, behaviour: Behaviour, models: list[ModelSpec], spec: DispatchSpec | None = None
) -> Dispatcher:
    """A dispatcher that was fed shard 0 and nothing else."""
    made = built(work, behaviour, models, spec)
    made.feed(0)
    made.close_feed()
    return made


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("limits", "slow_down"),
    [({"rpm": 1, "max_in_flight": 32}, False), ({"max_in_flight": 4}, True)],
    ids=["a row a minute", "told to wait an hour"],
)
def test_a_drain_sends_no_row_that_waits_for_an_endpoint(limits: dict[str, Any], *, slow_down: bool) -> None:
    """After a drain, rows that wait for a limit or a pause are not sent; the run ends with the requests in flight."""
    sent: list[float] = []

    async def drained() -> tuple[DispatchEnd, float]:
        began = now()

        async def server(request: Request, endpoint: EndpointSpec) -> Completion:
            sent.append(now() - began)
            await asyncio.sleep(0.5)
            if slow_down and now() - began > 3:
                raise RateLimited("slow down", status=429, retry_after=3600.0)
            return answer()

        sending = dispatcher(MemoryWork({(0, "m"): list(range(500))}), server, [model("m", **limits)])
        asyncio.get_running_loop().call_later(DRAINED_AT, sending.drain)
        end = await sending.run()
        assert all(lane.pool.waiting == 0 for lane in sending.lanes.values())
        return end, now() - began

    end, ended_at = run(drained())
    assert end.interrupted
    assert ended_at < DRAINED_AT + 1
    assert max(sent) < DRAINED_AT


def test_rows_that_fall_back_to_a_model_that_has_stalled_end_the_run() -> None:
    """No model can answer these rows now, so they are left for the next sitting, and this run ends."""

    async def fallen_back() -> DispatchEnd:
        began = now()

        async def server(request: Request, endpoint: EndpointSpec) -> Completion:
            if "small" in str(endpoint.url):
                raise NotConnected("no connection")
            await asyncio.sleep(1)
            if now() - began > 700:
                raise Refused("key revoked", status=401)
            return answer()

        work = MemoryWork({(0, "small"): [0], (0, "large"): list(range(1, 2000))})
        models = [model("small"), model("large", max_in_flight=1)]
        sending = dispatcher(work, server, models, DispatchSpec(fallbacks={"large": ("small",)}))
        async with asyncio.timeout(10_000):
            end = await sending.run()
        assert sending.lanes["small"].open == 2000 - len(work.outcomes) > 1
        return end

    end = run(fallen_back())
    assert end.stalled == ("model 'small': no endpoint has answered for 600 seconds; http://small/v1: no connection",)


def test_the_second_half_of_a_pack_is_not_sent_after_a_cancellation() -> None:
    """A transport may return an answer although it is cancelled; the second half of a refused pack is then not sent."""
    sent: list[int] = []

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        asked = orjson.loads(request.body)["input"]
        count = 1 if isinstance(asked, str) else len(asked)
        sent.append(count)
        if count > 16:
            raise BadRequest("too many", status=400)
        try:
            await asyncio.sleep(500)
        except asyncio.CancelledError:
            if len(sent) != 2:
                raise
        usage = {"prompt_tokens": 10 * count, "total_tokens": 10 * count}
        return vectors(*[{"index": i, "embedding": [1.0]} for i in range(count)], usage=usage)

    async def cancelled() -> float:
        work = EmbeddingWork({(0, "m"): list(range(32))})
        running = asyncio.create_task(dispatcher(work, server, [model("m", max_in_flight=1)]).run())
        asyncio.get_running_loop().call_later(0.6, running.cancel)
        with pytest.raises(asyncio.CancelledError):
            await running
        return now()

    async def timed() -> float:
        began = now()
        return await cancelled() - began

    assert run(timed()) < 1
    assert sent == [32, 16]


def test_the_first_failure_is_raised() -> None:
    """Errors that tasks raise while a full disk cancels them do not hide the `StorageError`."""

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            raise ValueError("a transport's own fault") from None
        return answer()

    async def failing(act: Callable[[Dispatcher], None]) -> None:
        sending = dispatcher(MemoryWork({(0, "m"): list(range(100))}), server, [model("m", max_in_flight=4)])
        asyncio.get_running_loop().call_later(0.7, act, sending)
        await sending.run()

    with pytest.raises(StorageError, match="the disk is full"):
        run(failing(lambda sending: sending.fail(StorageError("the disk is full"))))
