"""The dispatcher of a run, on an event loop in a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import uvloop

from batch.clock import WallClock
from batch.costs.prices import Price
from batch.dispatch.budget import Pricing
from batch.dispatch.dispatcher import DispatchEnd, Dispatcher
from batch.dispatch.lane import Lane
from batch.dispatch.limits.open_files import connections, note, raise_limit
from batch.dispatch.snapshot import LaneSnapshot
from batch.environment import Environment
from batch.errors import BatchRouterError, RunLockedError, StorageError
from batch.loop_thread import LoopThread
from batch.routers.embedders.spending_log import read_spending
from batch.running.found_limits import read_found, write_found
from batch.running.run_work import RunWork
from batch.runs.integrity.places import put_back_journals
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.spent import spent
from batch.runs.layout import Layout
from batch.runs.waits import StoredWait, write_waits
from batch.storage.lock import FileLock
from schemas.endpoints import ModelSpec
from schemas.job import DispatchSpec

_log = logging.getLogger("batchrouter.running")

# How long to wait for the lock of a dispatcher whose driver was killed. Measured: Ray ends it within 2.2 seconds.
_ORPHAN_SECONDS = 15.0
_LOOK_AGAIN_SECONDS = 0.1
_REMEMBER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DispatchPlan:
    """Everything that a dispatcher is built from. It pickles and holds no key."""

    run_path: str
    """Path of the run directory, on the machine where the dispatcher runs."""
    models: tuple[ModelSpec, ...]
    """The models, with every endpoint's `url` and `model` filled in."""
    prices: Mapping[str, Price | None]
    """The price of each model; `None`: unknown."""
    spec: DispatchSpec
    seed: int
    retry_failed: bool = False
    sync: bool = True
    """`False` leaves out fsync, only to measure what it costs."""


@dataclass(frozen=True, slots=True)
class DispatchState:
    """The state of a dispatch."""

    lanes: tuple[LaneSnapshot, ...]
    completed: tuple[int, ...]
    """Shards completed since the last poll."""
    since_first: float | None
    """Seconds since the first request of this sitting."""
    since_last: float | None
    """Seconds since the last outcome of a shard."""
    end: DispatchEnd | None = None
    """How the dispatcher ended; `None`: it has not, or it has failed."""
    error: BatchRouterError | None = None
    """Why the dispatcher failed; `None`: it has not."""


class DispatchThread:
    """Runs the dispatcher of a run on an event loop in a thread. Any thread may call its methods; they return at once.

    Before `start`, nothing happens. `close` has to be called afterwards.
    """

    def __init__(self, plan: DispatchPlan, environment: Environment) -> None:
        self._plan = plan
        self._prices = plan.prices
        self._environment = environment
        self._lock = threading.Lock()
        self._completed: list[int] = []
        self._end: DispatchEnd | None = None
        self._first_sent: float | None = None
        self._last_shard: float | None = None
        self._dispatcher: Dispatcher | None = None
        self._thread = LoopThread("dispatch", self._run, uvloop.new_event_loop)

    def start(self) -> None:
        """Start the thread, and return once it holds the lock on the journals.

        Raises:
            SpecError: a key is not set, or an endpoint has no url.
            RunLockedError: another dispatcher works on this run, and did not end in time.
            StorageError: the run directory cannot be used.
        """
        raise_limit()
        self._thread.start()

    def feed(self, shards: Sequence[int]) -> None:
        """Send what is left of these shards."""
        self._call(lambda dispatcher: dispatcher.feed_all(shards))

    def close_feed(self) -> None:
        """Say that no more shards come."""
        self._call(lambda dispatcher: dispatcher.close_feed())

    def drain(self) -> None:
        """Start nothing new, and let the requests in flight end."""
        self._call(lambda dispatcher: dispatcher.drain())

    def poll(self) -> DispatchState:
        """Return the state of the dispatch. An error that is not a BatchRouterError is raised instead."""
        error = self._thread.error
        if error is not None and not isinstance(error, BatchRouterError):
            raise error
        # The end is read before the shards: once it is set, every completed shard is in the list.
        end = self._end
        with self._lock:
            completed, self._completed = tuple(self._completed), []
        lanes = self._dispatcher.lanes.values() if self._dispatcher is not None else ()
        return DispatchState(
            lanes=tuple(_snapshot(lane, self._prices[lane.model]) for lane in lanes),
            completed=completed,
            since_first=self._since(self._first_sent),
            since_last=self._since(self._last_shard),
            end=end,
            error=error,
        )

    def close(self) -> None:
        """End the dispatcher at once, whatever it is doing; requests in flight become ambiguous."""
        self._thread.stop()

    def _call(self, act: Callable[[Dispatcher], object]) -> None:
        self._thread.call(partial(self._act, act))

    def _act(self, act: Callable[[Dispatcher], object]) -> None:
        """Call `act` in the loop; an error in it ends the dispatch."""
        assert self._dispatcher is not None
        try:
            act(self._dispatcher)
        except BatchRouterError as error:
            self._dispatcher.fail(error)

    async def _run(self, ready: Callable[[], None]) -> None:
        plan = self._plan
        layout = Layout(Path(plan.run_path))
        with (
            await _lock_of(layout, _ORPHAN_SECONDS),
            GroupSync(enabled=plan.sync) as group,
        ):
            put_back_journals(layout)
            work = RunWork(
                layout,
                plan.models,
                plan.spec.fallbacks,
                group,
                retry_failed=plan.retry_failed,
                hash_key=plan.spec.hash_key if plan.spec.balancer == "consistent_hash" else None,
            )
            endpoints = sum(len(model.endpoints) for model in plan.models)
            each = connections(endpoints)
            self._dispatcher = Dispatcher(
                plan.models,
                plan.spec,
                work,
                seed=plan.seed,
                keys=self._environment.keys,
                wall=self._environment.wall,
                pricing={name: Pricing.at(price) for name, price in self._prices.items() if price is not None},
                # Read only now that the lock is held: until then another dispatcher may have been spending.
                spent=Decimal(0) if plan.spec.budget_usd is None else _spent(layout, plan.prices),
                on_shard=self._on_shard,
                known=read_found(layout.found_limits),
                connections=each,
                on_first_request=self._on_first_request,
            )
            ready()
            _log.info("the dispatcher has started with %d models and %d endpoints", len(plan.models), endpoints)
            remembering = asyncio.create_task(_remember(self._dispatcher, layout, self._environment.wall))
            try:
                end = await self._dispatcher.run()
            finally:
                remembering.cancel()
                _keep(self._dispatcher, layout, self._environment.wall)
        lanes = self._dispatcher.lanes.values()
        if each is not None and any(e.held_back for lane in lanes for e in lane.pool.endpoints):
            end = replace(end, notes=(*end.notes, note(each)))
        _log.info("the dispatcher has ended%s", ", asked to stop before the end" if end.interrupted else "")
        self._end = end

    def _on_shard(self, shard: int) -> None:
        self._last_shard = self._thread.time()
        with self._lock:
            self._completed.append(shard)

    def _on_first_request(self) -> None:
        self._first_sent = self._thread.time()

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else self._thread.time() - moment


def _spent(layout: Layout, prices: Mapping[str, Price | None]) -> Decimal:
    """Dollars that the run has cost so far, for rows and for its router's embedder."""
    return spent(layout, prices) + read_spending(layout.embeddings).usd


async def _lock_of(layout: Layout, patience_seconds: float) -> FileLock:
    """The lock on the journals.

    Where only the driver of an earlier sitting was killed, its dispatcher goes on until Ray ends it, seconds later.
    It is waited for.

    Raises:
        RunLockedError: it is still held after that.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_seconds
    lock = FileLock(layout.journal_lock, f"run directory {layout.path}")
    waiting = False
    while True:
        try:
            return lock.acquire()
        except RunLockedError as error:
            if loop.time() >= deadline:
                raise
            if not waiting:
                _log.info("waiting for the lock on the journals: %s", error)
            waiting = True
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)


async def _remember(dispatcher: Dispatcher, layout: Layout, wall: WallClock) -> None:
    """Store waits and learned limits every 15 seconds, in case this sitting is killed."""
    while True:
        await asyncio.sleep(_REMEMBER_SECONDS)
        _keep(dispatcher, layout, wall)


def _keep(dispatcher: Dispatcher, layout: Layout, wall: WallClock) -> None:
    waits = {
        lane.model: StoredWait(wall() + wait.seconds, wait.words)
        for lane in dispatcher.lanes.values()
        if lane.open and (wait := lane.pool.wait()) is not None
    }
    if waits or layout.waits.exists():
        # Only `status` shows them; a run does without.
        with suppress(StorageError):
            write_waits(layout.waits, waits)
    found = dispatcher.found()
    if found:
        # Where the disk is full the journals say so; what endpoints bear is found again.
        with suppress(StorageError):
            write_found(layout.found_limits, found)
            _log.debug("stored learned limits of %d endpoints", sum(map(len, found.values())))


def _snapshot(lane: Lane, price: Price | None) -> LaneSnapshot:
    done = lane.counts.ok + lane.counts.failed + lane.counts.unsent
    prompt_tokens = lane.counts.prompt_tokens + lane.counts.lost_prompt_tokens
    completion_tokens = lane.counts.completion_tokens + lane.counts.lost_completion_tokens
    return LaneSnapshot(
        model=lane.model,
        total=done + lane.open,
        done=done,
        ok=lane.counts.ok,
        failed=lane.counts.failed + lane.counts.unsent,
        in_flight=lane.pool.in_flight,
        throttled=sum(e.throttled for e in lane.pool.endpoints),
        cost=None if price is None else price.total(prompt_tokens, completion_tokens),
        waiting=lane.pool.waits_for(),
        wait_seconds=wait.seconds if lane.open and (wait := lane.pool.wait()) is not None else 0.0,
    )
