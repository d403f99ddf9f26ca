"""A lane: one model's rows, each leased an endpoint, sent, and retried. Lanes never wait for each other."""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from batch.dispatch.answer_lengths import ExpectedTokens
from batch.dispatch.balancing.row_assigners import RowAssigner
from batch.dispatch.balancing.row_picker import RowPicker
from batch.dispatch.billed_tokens import billed_tokens
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.journal_batcher import JournalBatcher
from batch.dispatch.judging.patience import PoolUnreachable
from batch.dispatch.judging.refusals import is_refusal
from batch.dispatch.judging.refused_rows import RefusedRows
from batch.dispatch.judging.throttled_rows import ThrottledRows
from batch.dispatch.lane_counts import LaneCounts
from batch.dispatch.memory_gate import ByteSemaphore
from batch.dispatch.packing.packs import fill_pack, halves, split_answers
from batch.dispatch.pool import EndpointPool, OverBudget, PoolOut, PoolStopped, RowRefused
from batch.dispatch.ports import JournalPort
from batch.dispatch.queue import RowQueue
from batch.dispatch.request import Completion, Request
from batch.dispatch.retry import RetryBudget, RetryRule
from batch.errors import DispatchError, PackMixedUp
from batch.outcomes import FailedAttempt, RowOutcome
from schemas.results import ErrorInfo

_log = logging.getLogger("batchrouter.dispatch.lane")

# Rows to read ahead for each request that may be in flight, so that long rows among the last are seen in time: about
# as many as one slot answers while the longest row runs.
_AHEAD_PER_SLOT = 64
_LEAST_AHEAD, _MOST_AHEAD = 1024, 8192

_UNAVAILABLE = 503


class LaneHost(Protocol):
    """What a lane needs from its dispatcher."""

    writes: JournalBatcher
    """Writes the lines of all journals."""

    def journal(self, shard: int, model: str) -> JournalPort:
        """The journal of a shard's rows that go to this model. The caller adds a line to it at once."""
        ...

    def ended(self, request: Request) -> None:
        """The row has its outcome, and the journal has the line."""
        ...

    def fall_back(self, request: Request) -> bool:
        """Hand the row to the next of its planned model's fallbacks; `False` if there is none."""
        ...


class Lane:
    """Sends one model's rows with as many workers as its endpoints may have requests in flight.

    Every row ends in exactly one journaled outcome. If the lane is stopped first, the row keeps the state it has on
    disk, and the next sitting sends it.
    """

    def __init__(
        self,
        model: str,
        pool: EndpointPool,
        rule: RetryRule,
        host: LaneHost,
        *,
        expected: ExpectedTokens,
        throttled: ThrottledRows,
        timeout_seconds: float,
        assigner: RowAssigner | None = None,
    ) -> None:
        """
        Args:
            expected: how long answers will be, learned by this lane.
            throttled: decides when to give up rows that are only ever throttled.
            assigner: says which of the rows at hand suit an endpoint; left out: first come, first served.
        """
        self.model = model
        self.pool = pool
        self.queue = RowQueue(
            self._refill,
            ahead=lambda: min(_MOST_AHEAD, max(_LEAST_AHEAD, _AHEAD_PER_SLOT * pool.allowed)),
            work=expected.work,
            retries=RetryBudget(asyncio.get_running_loop().time),
            kind=assigner.kind if assigner is not None else None,
        )
        self.stalled: str | None = None
        self.open = 0
        """Rows fed that have no outcome yet. The dispatcher keeps this count, since rows move between lanes."""
        self.counts = LaneCounts()
        self._rule = rule
        self._timeout_seconds = timeout_seconds
        self._host = host
        self._batches: deque[Iterator[Sequence[Request]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._expected = expected
        self._assigner = assigner
        self._row_picker = RowPicker(pool, self.queue, expected, assigner, self._loop.time)
        self._pick_row = self._row_picker.pick
        self._throttled = throttled
        self._refused = RefusedRows(
            pool.endpoints, attempted=self._journal_refusal, give_up=self._give_up_refused, send_again=self._send_again
        )
        self._large_requests = ByteSemaphore()
        self._workers: asyncio.TaskGroup | None = None
        self._working = self._free = 0

    def feed(self, batches: Iterable[Sequence[Request]]) -> None:
        """Add rows behind those already fed."""
        self._batches.append(iter(batches))
        self.queue.wake()

    async def run(self) -> None:
        """Send until the lane is stopped. Raises StorageError as soon as an outcome cannot be stored."""
        async with asyncio.TaskGroup() as self._workers:
            self._start_worker()

    def stop(self) -> None:
        """Send nothing more; `run` returns when the requests in flight have ended."""
        self.queue.stop()
        self.pool.stop()

    def _refill(self) -> Sequence[Request]:
        # Reading takes milliseconds. Write the journal lines first, or a kill meanwhile would lose answers.
        self._host.writes.write()
        while self._batches:
            rows = next(self._batches[0], None)
            if rows is None:
                self._batches.popleft()
            elif rows:
                return rows
        return ()

    def _start_worker(self) -> None:
        """Start one more worker."""
        assert self._workers is not None
        self._working += 1
        self._free += 1
        self._workers.create_task(self._work())

    def _on_lease(self) -> None:
        """A worker has an endpoint. If no other worker is free and more requests may be in flight, start one."""
        self._free -= 1
        if self._free == 0 and self._working < self.pool.allowed:
            self._start_worker()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        # A transport may return an answer although the task was cancelled at the same instant; that answer is kept, and
        # the loop ends here. Most of the time a row is at hand, and `get_nowait` saves the cost of a coroutine.
        while not task.cancelling() and (row := self.queue.get_nowait() or await self.queue.get()) is not None:
            request = fill_pack(row, self.queue, self.pool.endpoints)
            if self._large_requests.is_large(len(request.body)):
                await self._send_large(request)
            else:
                await self._send_request(request)
            if self._refused.count and self.open == self._refused.count:
                self._refused.settle()

    async def _send_large(self, request: Request) -> None:
        size = len(request.body)
        await self._large_requests.take(size)
        try:
            await self._send_request(request)
        finally:
            self._large_requests.release(size)

    async def _send_request(self, request: Request) -> bool:
        """Make one attempt at a row, or at several packed rows. Returns whether they were answered."""
        try:
            return await self._attempt(request)
        except PoolOut as error:
            for row in request.rows or (request,):
                if not self._host.fall_back(row):
                    self._end_unsent(row, "refused", str(error))
        except OverBudget as error:
            if request.rows:
                return await self._send_halves(request)
            self._end_unsent(request, "budget", str(error))
        except RowRefused:
            for row in request.rows or (request,):
                self._refused.only_refusing_ready(row)
        except PoolUnreachable as error:
            self.stalled = str(error)
            _log.warning("%s: no endpoint can be reached; its rows wait for the next sitting", self.model)
            self.stop()
        except PoolStopped:
            # The row keeps the state it has on disk.
            pass
        return False

    async def _send_halves(self, request: Request) -> bool:
        """Send packed rows in two halves. Once the lane is stopped, or its worker cancelled, the rest is not sent."""
        task = asyncio.current_task()
        assert task is not None
        answered = [not task.cancelling() and await self._send_request(half) for half in halves(request)]
        return all(answered)

    async def _attempt(self, request: Request) -> bool:
        """Make one attempt and act on how it ends. Returns whether it was answered."""
        if self.pool.counts_tokens:
            request.cost = self._expected.cost(request)
        if self._assigner is not None and self._row_picker.update_due:
            # It takes milliseconds. Write the journal lines first, or a kill meanwhile would lose answers.
            self._host.writes.write()
            self._row_picker.update()
        try:
            async with self.pool.lease(request, self._pick_row) as lease:
                self._on_lease()
                request = lease.request
                rows = request.rows or (request,)
                try:
                    endpoint = lease.endpoint
                    for row in rows:
                        row.sent += 1
                        row.attempts += 1
                        journal = self._host.journal(row.shard, self.model)
                        journal.intent(row.row, row.sent, endpoint.index)
                    # The intent must be with the kernel before the first byte is sent: after a kill, it is the only
                    # sign that the request may be billed.
                    self._host.writes.write()
                    completion = await endpoint.transport.send(request)
                    answers = split_answers(request, completion) if request.rows else (completion,)
                    latency = self._loop.time() - request.started
                    lease.completed(completion)
                finally:
                    self._free += 1
        except DispatchError as error:
            latency = self._loop.time() - request.started
            return await self._not_answered(request, endpoint, error, latency)
        endpoint.pack_size.answered(len(rows))
        self._learn(request, completion, endpoint, latency)
        for row, answer in zip(rows, answers, strict=True):
            prompt, completed, raw = answer.prompt_tokens, answer.completion_tokens, answer.raw
            self._end(row, RowOutcome(row.row, "ok", endpoint.index, row.sent, latency, prompt, completed, raw))
        if self._refused.count:
            self._refused.answered(endpoint, request.order)
        return True

    async def _not_answered(self, request: Request, endpoint: Endpoint, error: DispatchError, latency: float) -> bool:
        """Act on an attempt that ended in an error. Returns whether its rows were answered in smaller packs."""
        rows = request.rows or (request,)
        if error.billed:
            self._bill(rows, error)
        if isinstance(error, PackMixedUp):
            if not endpoint.pack_size.mixed_up():
                return await self._refused_pack(request, endpoint, error, latency)
            # At this endpoint the rows can only be sent one by one. The attempt counts for none of them.
            for row in rows:
                row.attempts -= 1
                self._journal_attempt(row, endpoint.index, error, latency, counts=False)
                self.queue.put_back(row)
            return False
        if is_refusal(error):
            if request.rows:
                return await self._refused_pack(request, endpoint, error, latency)
            request.attempts -= 1
            self._refused.refused(request, endpoint, error, latency)
            return False
        endpoint.pack_size.failed(len(rows), error, self._loop.time())
        for row in rows:
            self._failed(row, endpoint, error, latency)
        return False

    async def _refused_pack(self, request: Request, endpoint: Endpoint, error: DispatchError, latency: float) -> bool:
        """Send refused packed rows again in halves: these tell whether one row or their number was the reason."""
        count = len(request.rows)
        for row in request.rows:
            # The attempt counts for none of them.
            row.attempts -= 1
            self._journal_attempt(row, endpoint.index, error, latency, counts=False)
        size = endpoint.pack_size
        size.refused(count)
        answered = await self._send_halves(request)
        size.settled(count, too_large=answered)
        return answered

    def _failed(self, request: Request, endpoint: Endpoint, error: DispatchError, latency: float) -> None:
        """Put a failed row back into the queue, or give it up."""
        hopeless = False
        counts = error.reached
        answers = self.pool.answers
        if error.blame == "throttle":
            # Where the server refuses a share of all requests, a refusal says nothing about the row.
            counts = self._throttled.counts(request, answers) and error.reached and not endpoint.pace.ignores_refusals
            others = self.open - self._refused.count
            hopeless = self._throttled.hopeless(request, error, answers=answers, others_open=others)
        elif error.status == _UNAVAILABLE and not endpoint.answers and self._may_be_loading(endpoint):
            counts = False
        if not counts:
            request.attempts -= 1
        if not error.reached:
            request.sent -= 1
        request.avoid |= 1 << endpoint.index
        request.failed_as = (error.kind, error.status)
        request.answers_at_failure = answers
        delay = None if hopeless else self._rule.delay(request, error)
        if delay is None:
            # The outcome line ends the attempt too. With two lines, a kill between them would have the row sent again.
            self._give_up(request, endpoint.index, error, latency)
        else:
            self._journal_attempt(request, endpoint.index, error, latency, counts=counts)
            self.queue.put_back(request, delay, retry=error.blame in ("endpoint", "row") and error.reached)

    def _bill(self, rows: Sequence[Request], error: DispatchError) -> None:
        """Record what the attempt may have cost: in its rows, for the journal, and in the lane's counts."""
        for row, billed in zip(rows, billed_tokens(rows, error), strict=True):
            row.billed = billed
            if billed is not None:
                self.counts.add_lost(billed)

    def _may_be_loading(self, endpoint: Endpoint) -> bool:
        """May the endpoint, which has answered nothing so far, still be loading its model?"""
        since = endpoint.health.down_since
        return since is None or self._loop.time() - since < self._timeout_seconds

    def _journal_attempt(
        self, request: Request, endpoint: int, error: DispatchError, latency: float, *, counts: bool
    ) -> None:
        """Journal that the attempt ended without an answer: the row is no longer in flight."""
        self._host.journal(request.shard, self.model).attempt(
            FailedAttempt(
                request.row,
                request.sent,
                endpoint,
                error.kind,
                error.status,
                latency,
                counts=counts,
                billed=request.take_billed(),
            )
        )

    def _give_up(self, request: Request, endpoint: int, error: DispatchError, latency: float) -> None:
        info = ErrorInfo(kind=error.kind, status=error.status, message=str(error))
        _log.debug(
            "%s: row %d of shard %d is given up after %d requests: %s, HTTP %s",
            self.model,
            request.row,
            request.shard,
            request.sent,
            error.kind,
            error.status,
        )
        self._end(
            request,
            RowOutcome(
                request.row,
                "failed",
                endpoint,
                request.sent,
                latency,
                response=error.body,
                error=info,
                billed=request.take_billed(),
            ),
        )

    def _journal_refusal(self, request: Request) -> None:
        refusal = request.refusal
        assert refusal is not None
        self._journal_attempt(request, refusal.endpoint, refusal.error, refusal.latency, counts=False)

    def _give_up_refused(self, request: Request) -> None:
        refusal = request.refusal
        assert refusal is not None
        self._give_up(request, refusal.endpoint, refusal.error, refusal.latency)

    def _send_again(self, request: Request, delay: float) -> None:
        self.queue.put_back(request, delay, retry=delay > 0.0)

    def _learn(self, request: Request, completion: Completion, endpoint: Endpoint, latency: float) -> None:
        if request.rows:
            return
        self._expected.learn(request, completion)
        if self._assigner is not None and completion.completion_tokens is not None:
            self._assigner.learn(endpoint, completion.completion_tokens, latency)

    def _end_unsent(self, request: Request, kind: str, message: str) -> None:
        error = ErrorInfo(kind=kind, message=message)
        self._end(request, RowOutcome(request.row, "unsent", None, request.sent, None, error=error))

    def _end(self, request: Request, outcome: RowOutcome) -> None:
        """Journal the row's outcome and count it."""
        self._host.journal(request.shard, self.model).outcome(outcome)
        if request.answers_seen >= 0:
            self._throttled.ended(request)
        self.counts.add(outcome)
        self._host.ended(request)

    def __repr__(self) -> str:
        return f"Lane({self.model}, {self.counts.ok} ok, {self.open} open, {self.pool!r})"
