"""A run from shards to output. Each step stores its result before the next one uses it, so a kill may come anywhere."""

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

    One loop hands work to the engine and waits for it. Shards are read and scored side by side, planned in input order,
    grouped by model on disk, fed to the dispatcher, and committed once they are answered.
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
            engine: runs the work.
            retry_failed: send rows that failed in an earlier sitting again.
            observe: called many times a second with the state of the run.
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
        """Start nothing new, and let `run` return when requests in flight have ended. A signal handler may call it."""
        self._draining = True

    def run(self) -> RunEnd:
        """Work until every shard is committed, or until `drain` was called and the requests in flight have ended.

        Raises:
            InputError: the input is empty, lacks a column that the job names, or has rows that the job refuses;
                nothing was sent.
            RunLockedError: another process sends this run's rows.
            StorageError: something could not be stored; rerunning the command resumes.
            DamagedError: a file of the run is damaged; once it is removed, another pipeline makes it again. The
                requests in flight have ended and their answers are stored.
        """
        self._times = SittingTimes(self._clock)
        leave_pandas_out()
        try:
            planner = self._prepare()
            self._spending = spending_record(self._job, self._layout)
            if self._spending is None or self._spending.cap is None:
                # Before there is anything to send: the dispatcher's process starts while rows are scored.
                self._start_dispatcher()
            self._loop(planner)
        except RunLockedError:
            # `drain` was called while the dispatcher waited for one of an earlier sitting to end.
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
        """The ledger of all committed shards together, and their commit records."""
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
        """Notes on the rows that were scored, for the report."""
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
        """Start the dispatcher if there is a shard that is not committed."""
        if not self._shards.all_committed:
            self._feed.start()

    def _prepare(self) -> Planner:
        """Find out what earlier sittings have left to do."""
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
        """If reading or planning fails after something was sent, let the requests in flight end before the run does."""
        try:
            yield
        except (DamagedError, SpecError) as error:
            if isinstance(error, SpecError) and not self._layout.anything_sent():
                raise  # Nothing was sent, so there is nothing to keep.
            self._halted = self._halted or error
            self._draining = True

    def _count_answers(self) -> None:
        """Store how many answers the journals of the shards hold that this sitting leaves half done."""
        if self._feed.end is None:
            # A dispatcher may still be writing to the journals.
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
        """Have the files that an earlier sitting routed compared with their checksums, before they are sent."""
        while self._to_check and len(self._pending) < self._engine.slots:
            index = self._to_check.pop()
            self._shards.states.move(index, ShardState.CHECKING)
            self._pending[self._engine.submit(check_routed, self._layout, index)] = self._was_checked

    def _was_checked(self, index: int) -> None:
        self._shards.states.move(index, ShardState.ROUTED)
        self._feed.feed([index])

    def _ask_for_routings(self, planner: Planner) -> None:
        """Called before `_ask_for_scores`, which would take every slot of the engine."""
        room = max(0, self._engine.slots - len(self._pending))
        for routing in islice(planner.take(), room):
            # A committed shard whose routing was lost stays committed: other shards may share answers of its rows.
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
                # If no limit counts prompt tokens, counting them exactly would cost more than reading.
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
        """Start, feed and poll the dispatcher, and have answered shards committed."""
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
