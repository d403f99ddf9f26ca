"""The dispatcher: all lanes in one event loop. All endpoint state lives in that loop, so limits are exact."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from random import Random

from batch.clock import WallClock
from batch.dispatch.answer_lengths import ExpectedTokens
from batch.dispatch.balancing.balancers import Balancer, ConsistentHash, build_balancer, looks_at_speed
from batch.dispatch.balancing.linear_program import LinearProgramAssigner
from batch.dispatch.balancing.row_assigners import AffinityAssigner, RowAssigner
from batch.dispatch.budget import Budget, Pricing
from batch.dispatch.endpoint import Endpoint, address
from batch.dispatch.health import State
from batch.dispatch.journal_batcher import JournalBatcher
from batch.dispatch.judging.patience import Patience
from batch.dispatch.judging.throttled_rows import ThrottledRows
from batch.dispatch.lane import Lane
from batch.dispatch.pool import EndpointPool
from batch.dispatch.ports import History, JournalPort, Work
from batch.dispatch.request import Request
from batch.dispatch.retry import RetryRule
from batch.dispatch.transports.base import Transport
from batch.dispatch.transports.registry import build_transport
from batch.environment import Keys
from batch.errors import BatchRouterError
from batch.limits import LearnedLimits
from batch.outcomes import RowOutcome
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.job import DispatchSpec
from schemas.results import ErrorInfo

TransportBuilder = Callable[[EndpointSpec], Transport]


@dataclass(frozen=True, slots=True)
class DispatchEnd:
    """How a dispatch ended."""

    interrupted: bool
    """Was the dispatcher asked to stop while rows were left?"""
    stalled: tuple[str, ...]
    """One line per model whose endpoints stayed unreachable; its rows wait for the next sitting."""
    notes: tuple[str, ...]
    """One line per endpoint that is out or in a cooldown, or whose limits were learned."""


@dataclass(slots=True)
class _Shard:
    remaining: int
    journals: dict[str, JournalPort]


class Dispatcher:
    """Sends every row of the shards it is fed, until each row has exactly one outcome.

    Shards can be fed in any number and at any time. `run` returns when the feed is closed and every row has its
    outcome, or when the dispatcher was drained. A Dispatcher must be built inside the event loop it runs in.
    """

    def __init__(
        self,
        models: Sequence[ModelSpec],
        spec: DispatchSpec,
        work: Work,
        *,
        seed: int,
        keys: Keys,
        wall: WallClock,
        pricing: Mapping[str, Pricing] | None = None,
        spent: Decimal = Decimal(0),
        transports: TransportBuilder | None = None,
        known: Mapping[str, Mapping[str, LearnedLimits]] | None = None,
        connections: int | None = None,
        on_shard: Callable[[int], None] = lambda shard: None,
        on_first_request: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            models: the job's, with every endpoint's `url` and `model` filled in.
            pricing: what attempts cost, by model; needed if there is a budget.
            spent: dollars of the budget that earlier sittings of the run have spent.
            transports: builds an endpoint's transport; left out: as its spec says.
            known: limits that an earlier sitting learned, by model and endpoint.
            connections: the most connections that this process can open to each endpoint; left out: any number.
            on_shard: called, in the loop, when a shard's last row has its outcome and its journals are closed.
            on_first_request: called, in the loop, before the first request of this sitting is sent.

        Raises:
            SpecError: an endpoint's key is not set, or it has no URL.
        """
        loop = asyncio.get_running_loop()
        self._spec = spec
        self._wall = wall
        self._work = work
        self._on_shard = on_shard
        self._on_first_request: Callable[[], None] | None = on_first_request
        self._shards: dict[int, _Shard] = {}
        self._fed: asyncio.Queue[int] = asyncio.Queue()
        self._not_begun = 0
        self._feed_closed = False
        self._drained = False
        self._ended = loop.create_future()
        self.writes = JournalBatcher(self.fail)
        budget = Budget(spec.budget_usd, spent) if spec.budget_usd is not None else None
        self.lanes: dict[str, Lane] = {}
        build = transports or partial(build_transport, timeout_seconds=spec.timeout_seconds, keys=keys, wall=wall)
        for position, model in enumerate(models):
            random = Random(f"{seed}/{position}")  # noqa: S311  jitter and picks, not secrets
            pool_pricing = (pricing or {}).get(model.name)
            model_known = (known or {}).get(model.name, {})
            endpoints = _build_endpoints(model, build, model_known, spec, random, connections)
            self.lanes[model.name] = self._build_lane(model.name, endpoints, random, budget, pool_pricing)

    def _build_lane(
        self,
        model: str,
        endpoints: Sequence[Endpoint],
        random: Random,
        budget: Budget | None,
        pricing: Pricing | None,
    ) -> Lane:
        spec = self._spec
        balancer = build_balancer(spec.balancer, random)
        clock = asyncio.get_running_loop().time
        patience = Patience(clock, self._wall, spec.timeout_seconds, spec.longest_wait)
        pool = EndpointPool(model, endpoints, balancer, patience=patience, budget=budget, pricing=pricing)
        expected = ExpectedTokens()
        rule = RetryRule(spec.max_attempts, random)
        return Lane(
            model,
            pool,
            rule,
            self,
            expected=expected,
            throttled=ThrottledRows(clock, spec.max_attempts, spec.timeout_seconds),
            timeout_seconds=spec.timeout_seconds,
            assigner=_build_assigner(endpoints, balancer, expected),
        )

    async def run(self) -> DispatchEnd:
        """Send until every row that was fed has its outcome.

        Raises:
            StorageError: an outcome could not be stored; all lanes were stopped at once.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self.lanes.values():
                    group.create_task(self._lane(lane))
                beginner = group.create_task(self._begin_fed())
                await self._ended
                beginner.cancel()
                for lane in self.lanes.values():
                    lane.stop()
        except BaseExceptionGroup as errors:
            raise self._failure() or _first(errors) from None
        finally:
            await self._close()
        stalled = tuple(lane.stalled for lane in self.lanes.values() if lane.stalled)
        notes = tuple(
            note for lane in self.lanes.values() for e in lane.pool.endpoints for note in _notes(lane.model, e)
        )
        left = self._not_begun or any(lane.open for lane in self.lanes.values())
        return DispatchEnd(bool(self._drained and left), stalled, notes)

    async def _close(self) -> None:
        try:
            with ExitStack() as journals:
                for shard in self._shards.values():
                    for journal in shard.journals.values():
                        journals.callback(journal.close)
        finally:
            for lane in self.lanes.values():
                for endpoint in lane.pool.endpoints:
                    await endpoint.transport.aclose()

    def feed(self, shard: int) -> None:
        """Send what is left of a shard."""
        self._begin(shard, self._work.history(shard))

    def feed_all(self, shards: Sequence[int]) -> None:
        """Send what is left of several shards, one after the other. A thread reads what is left of each."""
        self._not_begun += len(shards)
        for shard in shards:
            self._fed.put_nowait(shard)

    async def _begin_fed(self) -> None:
        while True:
            shard = await self._fed.get()
            history = await asyncio.to_thread(self._work.history, shard)
            self._not_begun -= 1
            self._begin(shard, history)
            self._end_if_done()

    def _begin(self, shard: int, history: History) -> None:
        self._shards[shard] = _Shard(sum(history.remaining.values()), {})
        if self._shards[shard].remaining == 0:
            self._finish_shard(shard)
            return
        for model, count in history.remaining.items():
            if count:
                self.lanes[model].open += count
                self.lanes[model].feed(self._pending(shard, model, history))

    def close_feed(self) -> None:
        """No more shards come: `run` ends once every row has its outcome."""
        self._feed_closed = True
        self._end_if_done()

    def drain(self) -> None:
        """Start no new request, let those in flight end, then return from `run`."""
        self._drained = True
        self._end()

    def fail(self, error: BatchRouterError) -> None:
        """End `run` at once; it raises this error."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def found(self) -> dict[str, dict[str, LearnedLimits]]:
        """The limits learned so far, by model and endpoint; endpoints of which nothing was learned are left out."""
        found = {
            model: {e.url: e.found for e in lane.pool.endpoints if e.found != LearnedLimits()}
            for model, lane in self.lanes.items()
        }
        return {model: endpoints for model, endpoints in found.items() if endpoints}

    def journal(self, shard: int, model: str) -> JournalPort:
        """The journal of a shard's rows that go to this model, opened when first needed.

        The caller adds a line at once: it is written at the end of this turn of the loop.
        """
        if self._on_first_request is not None:
            self._on_first_request()
            self._on_first_request = None
        journals = self._shards[shard].journals
        journal = journals.get(model)
        if journal is None:
            # Opening may take milliseconds. Write the journal lines first, or a kill meanwhile would lose answers.
            self.writes.write()
            journal = journals[model] = self._work.journal(shard, model)
        self.writes.add(journal)
        return journal

    def ended(self, request: Request) -> None:
        """A row has its outcome."""
        lane = self.lanes[request.model]
        lane.open -= 1
        shard = self._shards[request.shard]
        shard.remaining -= 1
        if shard.remaining == 0:
            self._finish_shard(request.shard)
        if lane.open == 0:
            self._end_if_done()

    def fall_back(self, request: Request) -> bool:
        """Hand the row to the next of its planned model's fallbacks that has an endpoint left; `False`: none has."""
        chain = (request.planned, *self._spec.fallbacks.get(request.planned, ()))
        for model in chain[chain.index(request.model) + 1 :]:
            if not all(e.out for e in self.lanes[model].pool.endpoints):
                left = self.lanes[request.model]
                left.open -= 1
                self.lanes[model].open += 1
                request.moved_to(model)
                self.lanes[model].queue.put_back(request)
                if left.open == 0:
                    # If the other lanes have stalled or ended, no later event would end the run.
                    self._end_if_done()
                return True
        return False

    def _pending(self, shard: int, model: str, history: History) -> Iterator[Sequence[Request]]:
        """The shard's rows for this model that have no outcome yet. A batch is read when it is needed."""
        for batch in self._work.routed(shard, model):
            rows = []
            for request in batch:
                if request.row in history.finished:
                    continue
                request.sent = history.sent.get(request.row, 0)
                failed = history.failures.get(request.row)
                if failed is not None:
                    request.attempts = failed[0]
                    request.failed_as = failed[1:]
                if request.row in history.ambiguous and self._spec.on_ambiguous == "fail":
                    self._fail_ambiguous(request, history.ambiguous[request.row])
                else:
                    rows.append(request)
            yield rows

    def _fail_ambiguous(self, request: Request, url: str | None) -> None:
        pool = self.lanes[request.model].pool
        endpoint = next((e.index for e in pool.endpoints if e.url == url), None)
        error = ErrorInfo(kind="ambiguous", message="in flight when a run was killed; it may have been billed")
        outcome = RowOutcome(request.row, "failed", endpoint, request.sent, None, error=error)
        self.journal(request.shard, request.model).outcome(outcome)
        self.lanes[request.model].counts.add(outcome)
        self.ended(request)

    async def _lane(self, lane: Lane) -> None:
        await lane.run()
        # A stalled lane leaves its open rows to the next sitting; the other lanes go on until theirs are done.
        self._end_if_done()

    def _finish_shard(self, shard: int) -> None:
        for journal in self._shards[shard].journals.values():
            journal.close()
        del self._shards[shard]
        self._on_shard(shard)

    def _end_if_done(self) -> None:
        if not self._feed_closed or self._not_begun:
            return
        if all(lane.open == 0 or lane.stalled for lane in self.lanes.values()):
            self._end()

    def _failure(self) -> BaseException | None:
        """The error given to `fail`. What tasks raise while they are cancelled because of it comes later."""
        return self._ended.exception() if self._ended.done() and not self._ended.cancelled() else None

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)


def _notes(model: str, endpoint: Endpoint) -> Iterator[str]:
    """What the report should say about an endpoint, line by line."""
    if endpoint.out:
        yield f"{model}: {endpoint.url} was out for the rest of the run: {endpoint.health.reason}"
    elif endpoint.health.state in (State.COOLING, State.PROBING) and not endpoint.health.doubted:
        yield f"{model}: {endpoint.url} was in a cooldown at the end: {endpoint.health.reason}"
    found = endpoint.found
    if found.in_flight is not None:
        yield f"{model}: {endpoint.url} was found to bear {found.in_flight:,} requests at once"
    if found.rpm is not None:
        yield f"{model}: {endpoint.url} was found to accept {found.rpm:,.0f} requests per minute"


def _build_endpoints(
    model: ModelSpec,
    build: TransportBuilder,
    known: Mapping[str, LearnedLimits],
    spec: DispatchSpec,
    random: Random,
    connections: int | None,
) -> list[Endpoint]:
    clock = asyncio.get_running_loop().time
    made = partial(Endpoint, measured=looks_at_speed(spec.balancer), connections=connections)
    return [
        made(e, model.name, i, build(e), clock, random, known.get(address(e, model.name)))
        for i, e in enumerate(model.endpoints)
    ]


def _build_assigner(endpoints: Sequence[Endpoint], balancer: Balancer, expected: ExpectedTokens) -> RowAssigner | None:
    """What assigns rows to endpoints; `None` where it does not matter which endpoint gets which rows."""
    if isinstance(balancer, ConsistentHash):
        return AffinityAssigner(balancer, endpoints)
    differ = len({(e.spec.provider, e.spec.limits) for e in endpoints}) > 1
    return LinearProgramAssigner(endpoints, expected.cost_of) if differ else None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What went wrong first; whatever else a task group collected followed from it."""
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, BaseExceptionGroup) else inner
