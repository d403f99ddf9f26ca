"""The queue of a lane decides which row is sent next."""

import asyncio
from collections.abc import Sequence

from batch.dispatch.queue import RowQueue
from batch.dispatch.request import Request
from batch.dispatch.retry import RETRIES_PER_ROW, RETRIES_PER_SECOND, RetryBudget
from tests.fakes import request
from tests.virtual_time import run


def queue_of(batches: Sequence[Sequence[Request]], ahead: int = 4) -> tuple[RowQueue, list[int]]:
    left = [list(batch) for batch in batches]
    read: list[int] = []

    def refill() -> Sequence[Request]:
        if not left:
            return ()
        read.append(len(left[0]))
        return left.pop(0)

    queue = RowQueue(
        refill,
        ahead=lambda: ahead,
        work=lambda row: float(row.prompt_tokens),
        retries=RetryBudget(asyncio.get_running_loop().time),
    )
    return queue, read


async def next_row(queue: RowQueue) -> int:
    row = await queue.get()
    assert row is not None
    return row.row


def test_rows_come_in_order_and_the_last_ones_longest_first() -> None:
    """Few rows are read ahead; once all are read, the remaining rows are sorted by expected work, the most first."""

    async def test() -> None:
        rows = [request(row, prompt_tokens=row % 5 + 1) for row in range(20)]
        queue, read = queue_of([rows[i : i + 2] for i in range(0, 20, 2)])
        first = [await next_row(queue) for _ in range(8)]
        assert first == list(range(8))
        assert sum(read) <= 8 + 4 + 2
        rest = [await next_row(queue) for _ in range(12)]
        assert sorted(rest) == list(range(8, 20))
        tail = [rows[row].prompt_tokens for row in rest[-3:]]
        assert tail == sorted(tail, reverse=True)

    run(test())


def test_large_rows_are_not_read_far_ahead() -> None:
    """Of rows of 16 MiB the queue reads two ahead, not the four that are asked for."""

    async def test() -> None:
        rows = [request(row) for row in range(6)]
        for row in rows:
            row.body = b"x" * (16 << 20)
        queue, read = queue_of([[row] for row in rows])
        await next_row(queue)
        assert sum(read) == 2

    run(test())


def test_a_row_that_comes_back_goes_when_its_time_has_come_and_before_fresh_ones() -> None:
    """A retry is due after its back-off; a worker without other rows waits for it."""

    async def test() -> None:
        queue, _ = queue_of([[request(0)], [request(1)]])
        clock = asyncio.get_running_loop().time
        first = await queue.get()
        assert first is not None
        queue.put_back(first, 5.0, retry=True)
        assert await next_row(queue) == 1
        started = clock()
        assert await next_row(queue) == 0
        assert 5.0 <= clock() - started < 5.01

    run(test())


def test_every_idle_worker_gets_a_row_when_its_time_has_come() -> None:
    """Ten idle workers get ten rows with different back-offs, each row at its own time."""

    async def test() -> None:
        queue, _ = queue_of([])
        clock = asyncio.get_running_loop().time
        started = clock()
        got: list[tuple[int, float]] = []

        async def worker() -> None:
            got.append((await next_row(queue), clock() - started))

        workers = [asyncio.create_task(worker()) for _ in range(10)]
        await asyncio.sleep(0)
        for row in range(10):
            queue.put_back(request(row), 10.0 - row, retry=True)
        await asyncio.gather(*workers)
        assert sorted(row for row, _ in got) == list(range(10))
        assert all(abs(at - (10.0 - row)) < 0.01 for row, at in got)

    run(test())


def test_retries_never_become_most_of_what_is_sent() -> None:
    """1,000 rows fail once each: at every moment the retries stay within their budget, and all rows are retried."""

    async def test() -> None:
        rows = [request(row) for row in range(1000)]
        queue, _ = queue_of([rows])
        clock = asyncio.get_running_loop().time
        started = clock()
        failed: set[int] = set()
        fresh = again = 0
        while fresh + again < 2000:
            row = await queue.get()
            assert row is not None
            if row.row in failed:
                again += 1
            else:
                failed.add(row.row)
                fresh += 1
                queue.put_back(row, 0.0, retry=True)
            saved = RETRIES_PER_SECOND * 10
            assert again <= saved + RETRIES_PER_ROW * fresh + RETRIES_PER_SECOND * (clock() - started) + 1
        assert (fresh, again) == (1000, 1000)

    run(test())


def test_a_throttled_row_needs_no_budget() -> None:
    """A throttled row goes back into the queue at once, any number of times."""

    async def test() -> None:
        queue, _ = queue_of([[request(0)]])
        clock = asyncio.get_running_loop().time
        started = clock()
        for _ in range(1000):
            row = await queue.get()
            assert row is not None
            queue.put_back(row)
        assert clock() == started

    run(test())
