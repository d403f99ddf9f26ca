"""A run from shards to output. Each step is stored before the next one trusts it, so any of them may be the last."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from batch.clock import Clock
from batch.costs.ledger import Ledger
from batch.dispatch.snapshot import ProgressSnapshot
from batch.errors import DamagedError, RunLockedError, SpecError
from batch.reading.formats.without_pandas import leave_pandas_out
from batch.reading.notes import Note
from batch.reading.shard import Shard
from batch.reading.sources import Source
from batch.routers.registry import kind_of
from batch.running.dispatch_feed import DispatchFeed
from batch.running.dispatch_thread import DispatchPlan
from batch.running.embedder_spending import spending_record
from batch.running.engine import DispatchHandle, Engine, Handle
from batch.running.planner import Planner
from batch.running.resolved_job import ResolvedJob
from batch.running.run_end import RunEnd
from batch.running.run_shards import RunShards, find_run_shards
from batch.running.shard_states import ShardState
from batch.running.sitting_times import SittingTimes
from batch.running.stages import (
    CommitTask,
    ReadTask,
    RoutedShard,
    ScoredShard,
    ScoreTask,
    check_routed,
    commit,
    route,
    stored_summary,
)
from batch.running.supervisor import RestartingDispatcher
from batch.runs.committed import Committed, read_commit
from batch.runs.directory import RunDirectory
from batch.runs.integrity.answered import UnfinishedShard, record_answered

_POLL_SECONDS = 0.1


class Pipeline:
    """One sitting of a run.

    Work is asked of the engine and waited for in one loop: shards are read and scored side by side, planned in input
    order, grouped by model, fed to the dispatcher, and committed as they are completed.
    """

    def __init__(
        self,
        job: ResolvedJob,
        sources: Sequence[Source],
        directory: RunDirectory,
        engine: Engine,
        clock: Clock,
        *,
        retry_failed: bool = False,
        observe: Callable[[ProgressSnapshot], None] = lambda snapshot: None,
    ) -> None:
        """
        Args:
            sources: the job's input files, as they were when `directory` was opened for them.
            directory: opened for this job.
            retry_failed: send rows that failed again.
            observe: called many times a second with where the run stands.
        """
        self._job = job
        self._sources = sources
        self._directory = directory
        self._layout = directory.layout
        self._engine, self._clock = engine, clock
        self._retry_failed = retry_failed
        self._observe = observe
        self._draining = False
        self._times = SittingTimes(clock)
        self._shards = RunShards()
        # Shards to read and score, and shards whose routed parts are to be checked; the first one last.
        self._to_score: list[int] = []
        self._to_check: list[int] = []
        self._halted: DamagedError | SpecError | None = None
        self._pending: dict[Handle, Callable[[Any], None]] = {}
        self._feed = self._feed_of(self._shards)

    def drain(self) -> None:
        """Stop in good order: what is in flight ends and is kept, nothing new starts. A signal handler may call it."""
        self._draining = True

    def run(self) -> RunEnd:
        """Work until everything is committed, or until it was drained.

        Raises:
            InputError: the input is empty, lacks a column that the job names, or has rows that the job refuses;
                nothing was sent.
            RunLockedError: another process sends this run's rows.
            StorageError: something could not be stored; the same command goes on later.
            DamagedError: a file of the run is damaged; once it is removed, another pipeline makes it again. What was in
                flight has ended and is kept.
        """
        self._times = SittingTimes(self._clock)
        leave_pandas_out()
        try:
            planner = self._prepare()
            self._spending = spending_record(self._job, self._layout)
            if self._spending is None or self._spending.cap is None:
                # Before there is anything to send: its process starts while rows are scored.
                self._start_dispatcher()
            self._loop(planner)
        except RunLockedError:
            # It was asked to stop while it waited for an older dispatcher to end.
            if not self._draining:
                raise
        finally:
            self._feed.close()
            self._directory.add_sitting(self._times.sitting())
        self._count_answers()
        if isinstance(self._halted, DamagedError):
            raise self._halted
        end, finished = self._feed.end, self._shards.all_committed
        notes = (*end.stalled, *end.notes) if end is not None else ()
        if self._halted is not None and not finished:
            return RunEnd(finished, interrupted=False, notes=notes, halted=str(self._halted))
        return RunEnd(finished, self._draining and not finished, notes)

    def records(self) -> tuple[Ledger, list[Committed]]:
        """The counts of all committed shards together, and their records."""
        total = Ledger(self._job.prices)
        records = [r for s in self._shards.shards if (r := read_commit(self._layout, s.index)) is not None]
        for record in records:
            total.merge(Ledger.from_json(record.ledger, self._job.prices))
        return total, records

    @property
    def shards(self) -> list[Shard]:
        """The shards of the run, in input order; none before `run`."""
        return self._shards.shards

    def input_notes(self) -> tuple[Note, ...]:
        """What a reader should know of the rows that were scored."""
        return self._shards.notes()

    def _feed_of(self, shards: RunShards) -> DispatchFeed:
        def start() -> DispatchHandle:
            dispatcher = RestartingDispatcher(lambda: self._engine.dispatcher(plan), self._clock)
            dispatcher.start()
            return dispatcher

        plan = DispatchPlan(
            run_path=str(self._layout.path),
            models=self._job.models,
            prices=self._job.prices,
            spec=self._job.spec.dispatch,
            seed=self._job.spec.seed,
            retry_failed=self._retry_failed,
        )
        return DispatchFeed(start, shards, self._layout, self._times)

    def _start_dispatcher(self) -> None:
        """Where there is something left to send."""
        if not self._shards.all_committed:
            self._feed.start()

    def _prepare(self) -> Planner:
        """Find out what earlier sittings left to do."""
        self._show("reading")
        self._shards = find_run_shards(
            self._job,
            self._sources,
            self._directory,
            self._engine.map,
            retry_failed=self._retry_failed,
        )
        self._feed = self._feed_of(self._shards)
        planner = Planner(self._job.spec, self._shards.shards, self._directory, frozenset(self._shards.routed))
        for shard in self._shards.shards:
            if self._layout.scored(shard.index).exists():
                self._was_scored(planner, stored_summary(self._layout, shard.index))
            else:
                self._to_score.append(shard.index)
        self._to_score.reverse()
        self._to_check = self._shards.states.of(ShardState.UNCHECKED)[::-1]
        return planner

    def _loop(self, planner: Planner) -> None:
        while not self._over():
            with self._halting():
                if not self._draining:
                    self._ask_for_checks()
                    self._ask_for_routings(planner)
                    self._ask_for_scores(planner)
            self._dispatch()
            for handle in self._engine.wait(self._pending, _POLL_SECONDS):
                then = self._pending.pop(handle)
                with self._halting():
                    then(self._engine.result(handle))
            self._show(self._stage())

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Where reading or planning fails while rows may be in flight, let these end before the run does."""
        try:
            yield
        except (DamagedError, SpecError) as error:
            if isinstance(error, SpecError) and not self._layout.anything_sent():
                raise  # Nothing was sent, so there is nothing to keep.
            self._halted = self._halted or error
            self._draining = True

    def _count_answers(self) -> None:
        """Store what the journals of shards hold that this sitting leaves half done."""
        if self._feed.end is None:
            # Another dispatcher may still be writing to them.
            return
        unfinished = [
            UnfinishedShard(self._layout, index, self._job.names) for index in self._shards.open_after_routing()
        ]
        list(self._engine.map(record_answered, unfinished))

    def _over(self) -> bool:
        """Can nothing more happen in this sitting?"""
        # Answered shards whose scored part was lost are committed once they are scored again.
        unscored = not self._draining and self._shards.waits_for_scores()
        if self._pending or self._shards.committable() or unscored:
            return False
        if self._feed.started:
            return self._feed.end is not None
        return self._draining or self._shards.all_committed

    def _ask_for_checks(self) -> None:
        """Have what an earlier sitting routed compared with its checksums, as it is about to be sent."""
        while self._to_check and len(self._pending) < self._engine.slots:
            index = self._to_check.pop()
            self._shards.states.move(index, ShardState.CHECKING)
            self._pending[self._engine.submit(check_routed, self._layout, index)] = self._was_checked

    def _was_checked(self, index: int) -> None:
        self._shards.states.move(index, ShardState.ROUTED)
        self._feed.feed([index])

    def _ask_for_routings(self, planner: Planner) -> None:
        """Before scores, which would leave no room for them."""
        room = max(0, self._engine.slots - len(self._pending))
        for routing in islice(planner.take(), room):
            # A committed shard whose routing was lost stays committed: it is routed again for the sake of others.
            if self._shards.states[routing.index] is ShardState.SCORED:
                self._shards.states.move(routing.index, ShardState.ROUTING)
            self._pending[self._engine.submit(route, routing)] = self._was_routed

    def _ask_for_scores(self, planner: Planner) -> None:
        while self._to_score and len(self._pending) < self._engine.slots:
            index = self._to_score.pop()
            if self._shards.states[index] is ShardState.UNSCORED:
                self._shards.states.move(index, ShardState.SCORING)
            reading = ReadTask(
                self._layout,
                self._shards.shards[index],
                self._job.spec.input,
                # Where nothing reserves prompt tokens, counting them would cost more than reading.
                "exact" if any(model.limits_prompt_tokens for model in self._job.models) else "estimate",
                self._job.names[-1],
            )
            scoring = ScoreTask(
                self._job.spec, heavy=kind_of(self._job.spec.router).loads_model, spending=self._spending
            )
            self._pending[self._engine.score(reading, scoring)] = lambda scored: self._was_scored(planner, scored)

    def _was_scored(self, planner: Planner, scored: ScoredShard) -> None:
        planner.offer(scored)
        self._shards.add_scored(scored)
        if self._shards.all_scored:
            self._times.scored()
            self._engine.stop_scoring()

    def _was_routed(self, routed: RoutedShard) -> None:
        self._shards.add_routed(routed)
        if self._shards.states[routed.index] is ShardState.ROUTED:
            self._feed.feed([routed.index])

    def _dispatch(self) -> None:
        """Start, feed and watch the dispatcher; have answered shards committed."""
        if not self._feed.started and not self._draining and self._shards.all_scored:
            # Under a budget the embedder spends first and alone: two spenders could pass the cap between them.
            self._start_dispatcher()
            self._feed.feed(self._shards.states.of(ShardState.ROUTED))
        if self._feed.poll(drain=self._draining):
            for index in self._shards.committable():
                self._shards.states.move(index, ShardState.COMMITTING)
                committing = self._engine.submit(commit, self._committing_of(index))
                self._pending[committing] = partial(self._shards.add_committed, index)

    def _committing_of(self, index: int) -> CommitTask:
        return CommitTask(
            self._layout,
            index,
            self._job.prices,
            self._job.spec.dispatch.fallbacks,
            self._job.spec.output,
            tuple(shard.first_row for shard in self._shards.shards),
            self._shards.shards[index].name if self._shards.ids_made_up else None,
        )

    def _stage(self) -> str:
        if not self._shards.all_scored:
            return "scoring"
        if self._shards.all_committed or (self._feed.end is not None and not self._draining):
            return "writing"
        if self._draining:
            return "draining"
        return "dispatch" if self._feed.polled else "planning"

    def _show(self, stage: str) -> None:
        self._observe(
            ProgressSnapshot(
                stage=stage,
                scored=self._shards.rows_scored,
                total=self._shards.rows or None,
                lanes=self._feed.lanes,
                totals_final=self._feed.closed,
            )
        )
