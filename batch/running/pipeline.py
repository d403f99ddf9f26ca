"""A run from shards to output. Each step is stored before the next one trusts it, so any of them may be the last."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

from batch.clock import Clock
from batch.costs.ledger import Ledger
from batch.costs.prices import prices_for
from batch.dispatch.snapshot import ProgressSnapshot
from batch.errors import DamagedError, RunLockedError, SpecError
from batch.reading.notes import Note
from batch.reading.shard import Shard, to_stored
from batch.reading.shards import refill_spool
from batch.reading.sources import Source
from batch.running.dispatch_thread import DispatchPlan, DispatchState
from batch.running.embedder_spending import spending_record
from batch.running.engine import DispatchHandle, Engine, Handle
from batch.running.find_input import check_hash_key, find_input
from batch.running.planner import Planner
from batch.running.row_verdicts import summed_notes
from batch.running.run_end import RunEnd
from batch.running.sitting_times import SittingTimes
from batch.running.stages import (
    HEAVY_ROUTERS,
    CommitTask,
    ReadTask,
    RoutedShard,
    ScoredShard,
    ScoreTask,
    check_routed,
    commit,
    route,
    stored_routing,
    stored_summary,
)
from batch.running.supervisor import RestartingDispatcher
from batch.running.work_shards import work_shards
from batch.runs.committed import Committed, has_parts, read_commit
from batch.runs.directory import RunDirectory
from batch.runs.integrity.answered import Counting, count_answered
from batch.runs.integrity.places import put_back_if_idle
from batch.runs.output.commit import discard_commits
from batch.runs.output.parts import suffixes
from schemas.endpoints import ModelSpec
from schemas.job import JobSpec

_POLL_SECONDS = 0.1


class Pipeline:
    """One sitting of a run.

    Work is asked of the engine and waited for in one loop: shards are read and scored side by side, planned in input
    order, grouped by model, fed to the dispatcher, and committed as they are completed.
    """

    def __init__(
        self,
        job: JobSpec,
        models: Sequence[ModelSpec],
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
            models: the job's, with every endpoint's `url` and `model` filled in.
            sources: the job's input files, as they were when `directory` was opened for them.
            directory: opened for this job.
            retry_failed: send rows that failed again.
            observe: called many times a second with where the run stands.
        """
        self._job = job
        self._models = tuple(models)
        self._names = tuple(model.name for model in models)
        self._sources = sources
        self._directory = directory
        self._layout = directory.layout
        self._engine, self._clock = engine, clock
        self._retry_failed = retry_failed
        self._observe = observe
        self._prices = prices_for(self._models)
        self._draining = False
        self._times = SittingTimes(clock)
        # Do ids that nobody asked for repeat somewhere in the input, so that all of them are data?
        self._ids_made_up = False
        self.shards: list[Shard] = []
        self._to_score: list[int] = []
        self._scored: dict[int, ScoredShard] = {}
        self._routed: dict[int, RoutedShard] = {}
        # Routed by an earlier sitting, and to be compared with their checksums before they are sent.
        self._to_check: list[int] = []
        self._checking: set[int] = set()
        self._halted: DamagedError | SpecError | None = None
        self._answered: set[int] = set()
        self._committing: set[int] = set()
        self._committed: set[int] = set()
        self._pending: dict[Handle, Callable[[Any], None]] = {}
        self._dispatcher: DispatchHandle | None = None
        self._state: DispatchState | None = None
        self._fed = False
        self._feed_closed = False

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
        try:
            planner = self._prepare()
            self._spending = spending_record(self._job, self._layout, self._prices)
            if self._spending is None or self._spending.cap is None:
                # Before there is anything to send: its process starts while rows are scored.
                self._start_dispatcher()
            self._work(planner)
        except RunLockedError:
            # It was asked to stop while it waited for an older dispatcher to end.
            if not self._draining:
                raise
        finally:
            if self._dispatcher is not None:
                self._dispatcher.close()
            self._directory.add_sitting(self._times.sitting())
        self._count_answers()
        if isinstance(self._halted, DamagedError):
            raise self._halted
        end = self._state.end if self._state is not None else None
        finished = len(self._committed) == len(self.shards)
        notes = (*end.stalled, *end.notes) if end is not None else ()
        if self._halted is not None and not finished:
            return RunEnd(finished, interrupted=False, notes=notes, halted=str(self._halted))
        return RunEnd(finished, self._draining and not finished, notes)

    def records(self) -> tuple[Ledger, list[Committed]]:
        """The counts of all committed shards together, and their records."""
        total = Ledger(self._prices)
        records = [r for s in self.shards if (r := read_commit(self._layout, s.index)) is not None]
        for record in records:
            total.merge(Ledger.from_json(record.ledger, self._prices))
        return total, records

    def input_notes(self) -> tuple[Note, ...]:
        """What a reader should know of the rows that were scored."""
        shared = (self._routed[i].shared_ids for i in sorted(self._routed))
        return summed_notes((self._scored[i].notes for i in sorted(self._scored)), shared)

    def _start_dispatcher(self) -> None:
        """Where there is something left to send."""
        if len(self._committed) < len(self.shards):
            plan = self._dispatch_plan()
            self._dispatcher = RestartingDispatcher(lambda: self._engine.dispatcher(plan), self._clock)

    def _prepare(self) -> Planner:
        """Find out what earlier sittings left to do."""
        self._show("reading")
        put_back_if_idle(self._layout)
        if self._directory.manifest.shards is None:
            found = find_input(self._job, self._layout.spool, map=self._engine.map, sources=self._sources)
            self._directory.set_shards([to_stored(shard) for shard in found])
        self.shards = work_shards(self._directory, self._sources)
        # Where the plan is gone, nobody can say whether what it decided is what the next one decides.
        if self._directory.plan_changed or self._directory.read_plan() is None:
            self._directory.discard_plan()
        routed = (stored_routing(self._layout, shard.index, shard.first_row) for shard in self.shards)
        self._routed = {one.index: one for one in routed if one is not None}
        self._ids_made_up = any(one.shared_ids is not None for one in self._routed.values())
        for shard in self.shards:
            if self._is_committed(shard.index):
                self._answered.add(shard.index)
                self._committed.add(shard.index)
            elif shard.index in self._routed:
                self._to_check.append(shard.index)
        if len(self._routed) < len(self.shards):
            check_hash_key(self._job, self.shards)
        if any(not self._layout.scored(shard.index).exists() for shard in self.shards):
            refill_spool(self._job.input, self._layout.spool, self.shards, self._sources, map=self._engine.map)
        planner = Planner(self._job, self.shards, self._directory, frozenset(self._routed))
        for shard in self.shards:
            if self._layout.scored(shard.index).exists():
                self._was_scored(planner, stored_summary(self._layout, shard.index))
            else:
                self._to_score.append(shard.index)
        self._to_score.reverse()
        self._to_check.reverse()
        return planner

    def _is_committed(self, shard: int) -> bool:
        """Was it committed with nothing left to send, and is its part still there?"""
        record = read_commit(self._layout, shard)
        if record is None or record.ids_made_up != self._ids_made_up:
            return False
        if not has_parts(self._layout, shard, record, suffixes(self._job.output)):
            return False
        statuses = Ledger.from_json(record.ledger, self._prices).statuses
        return not statuses["unsent"] and not (self._retry_failed and statuses["failed"])

    def _work(self, planner: Planner) -> None:
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
        if self._state is None or self._state.end is None:
            # Another dispatcher may still be writing to them.
            return
        open_ones = sorted(set(self._routed) - self._committed)
        counting = [Counting(self._layout, index, self._names) for index in open_ones]
        list(self._engine.map(count_answered, counting))

    def _over(self) -> bool:
        """Can nothing more happen in this sitting?"""
        # Answered shards whose scores were lost are committed once they are scored again.
        unscored = set() if self._draining else self._answered - self._committed - self._scored.keys()
        if self._pending or self._committable() or unscored:
            return False
        if self._dispatcher is not None:
            return self._state is not None and self._state.end is not None
        return self._draining or len(self._committed) == len(self.shards)

    def _ask_for_checks(self) -> None:
        """Have what an earlier sitting routed compared with its checksums, as it is about to be sent."""
        while self._to_check and len(self._pending) < self._engine.slots:
            index = self._to_check.pop()
            self._checking.add(index)
            self._pending[self._engine.submit(check_routed, self._layout, index)] = self._was_checked

    def _all_routed(self) -> bool:
        return not self._to_check and not self._checking and len(self._routed) == len(self.shards)

    def _was_checked(self, index: int) -> None:
        self._checking.discard(index)
        self._feed([index])

    def _ask_for_routings(self, planner: Planner) -> None:
        """Before scores, which would leave no room for them."""
        room = max(0, self._engine.slots - len(self._pending))
        for routing in islice(planner.take(), room):
            self._pending[self._engine.submit(route, routing)] = self._was_routed

    def _ask_for_scores(self, planner: Planner) -> None:
        while self._to_score and len(self._pending) < self._engine.slots:
            reading = ReadTask(
                self._layout,
                self.shards[self._to_score.pop()],
                self._job.input,
                # Where nothing reserves prompt tokens, counting them would cost more than reading.
                "exact" if any(model.limits_prompt_tokens for model in self._models) else "estimate",
                self._names[-1],
            )
            scoring = ScoreTask(self._job, heavy=self._job.router.kind in HEAVY_ROUTERS, spending=self._spending)
            self._pending[self._engine.score(reading, scoring)] = lambda scored: self._was_scored(planner, scored)

    def _was_scored(self, planner: Planner, scored: ScoredShard) -> None:
        planner.offer(scored)
        self._scored[scored.index] = scored
        if len(self._scored) == len(self.shards):
            self._times.scored()
            self._engine.stop_scoring()

    def _was_routed(self, routed: RoutedShard) -> None:
        self._routed[routed.index] = routed
        if routed.index not in self._committed:
            self._feed([routed.index])
        if routed.shared_ids is not None and not self._ids_made_up:
            # Only now is it known that ids repeat: what was committed before is committed again, with made-up ids.
            self._ids_made_up = True
            self._committed.clear()

    def _feed(self, shards: Sequence[int]) -> None:
        """Have the dispatcher send what is left of these shards, unless it is draining."""
        if self._dispatcher is not None and not self._feed_closed:
            self._fed = True
            discard_commits(self._layout, shards)
            self._dispatcher.feed(shards)

    def _dispatch(self) -> None:
        """Start, feed and watch the dispatcher; have completed shards committed."""
        if self._dispatcher is None and not self._draining and len(self._scored) == len(self.shards):
            # Under a budget the embedder spends first and alone: two spenders could pass the cap between them.
            self._start_dispatcher()
            self._feed(sorted(set(self._routed) - self._committed - self._checking - set(self._to_check)))
        if self._dispatcher is None or not (self._fed or self._draining):
            return
        self._fed = True
        if self._draining:
            self._feed_closed = True
            self._dispatcher.drain()
        elif not self._feed_closed and self._all_routed():
            self._feed_closed = True
            self._dispatcher.close_feed()
        self._take(self._dispatcher.poll())
        for index in self._committable():
            self._committing.add(index)
            self._pending[self._engine.submit(commit, self._committing_of(index))] = partial(self._was_committed, index)

    def _take(self, state: DispatchState) -> None:
        self._state = state
        if state.error is not None:
            raise state.error
        self._times.saw(state)
        self._answered.update(state.completed)

    def _committable(self) -> list[int]:
        """Completed shards that are scored, if those whose answers they share are complete too."""
        open_ones = (self._answered & self._scored.keys()) - self._committed - self._committing
        return [
            i
            for i in sorted(open_ones)
            if all(self._shard_of(row) in self._answered for row in self._routed[i].depends)
        ]

    def _shard_of(self, row: int) -> int:
        return bisect_right(self.shards, row, key=lambda shard: shard.first_row) - 1

    def _committing_of(self, index: int) -> CommitTask:
        return CommitTask(
            self._layout,
            index,
            self._prices,
            self._job.dispatch.fallbacks,
            self._job.output,
            tuple(shard.first_row for shard in self.shards),
            self.shards[index].name if self._ids_made_up else None,
        )

    def _was_committed(self, index: int, committed: Committed) -> None:
        self._committing.discard(index)
        if committed.ids_made_up == self._ids_made_up:
            self._committed.add(index)

    def _dispatch_plan(self) -> DispatchPlan:
        return DispatchPlan(
            run_path=str(self._layout.path),
            models=self._models,
            prices=self._prices,
            spec=self._job.dispatch,
            seed=self._job.seed,
            retry_failed=self._retry_failed,
        )

    def _stage(self) -> str:
        if len(self._scored) < len(self.shards):
            return "scoring"
        at_its_end = self._state is not None and self._state.end is not None
        if len(self._committed) == len(self.shards) or (at_its_end and not self._draining):
            return "writing"
        if self._draining:
            return "draining"
        return "planning" if self._state is None else "dispatch"

    def _show(self, stage: str) -> None:
        self._observe(
            ProgressSnapshot(
                stage=stage,
                scored=sum(scored.rows for scored in self._scored.values()),
                total=sum(shard.rows for shard in self.shards) or None,
                lanes=self._state.lanes if self._state is not None else (),
                totals_final=self._feed_closed,
            )
        )
