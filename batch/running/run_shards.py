"""The shards of a run: what earlier sittings did with each, and what this one knows of it by now."""

import logging
from collections.abc import Mapping, Sequence
from itertools import takewhile

from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from batch.errors import InputError
from batch.reading.notes import Note
from batch.reading.shard import Shard, from_stored, index_of_row, to_stored
from batch.reading.shards import Mapper, refill_spool
from batch.reading.sources import Source
from batch.running.find_input import check_hash_key, find_input
from batch.running.resolved_job import ResolvedJob
from batch.running.row_verdicts import summed_notes
from batch.running.shard_states import ShardState, ShardStates
from batch.running.stages import RoutedShard, ScoredShard, stored_routing
from batch.runs.committed import Committed, has_parts, read_commit
from batch.runs.directory import RunDirectory
from batch.runs.integrity.places import put_back_if_idle
from batch.runs.output.parts import suffixes

_log = logging.getLogger("batchrouter.running")

_ANSWERED = frozenset({ShardState.ANSWERED, ShardState.COMMITTING, ShardState.COMMITTED})


class RunShards:
    """All shards of a run, their states, and what scoring and routing found out about them.

    Attributes:
        shards: in input order.
        states: of each.
        scored: what is kept of each scored part, by shard.
        routed: which rows were grouped by model, by shard.
        ids_made_up: do ids that no setting names repeat in the input, so that all rows get made-up ids?
    """

    def __init__(
        self,
        shards: Sequence[Shard] = (),
        states: Sequence[ShardState] = (),
        routed: Mapping[int, RoutedShard] | None = None,
    ) -> None:
        """
        Args:
            states: in which each shard is found.
            routed: those that an earlier sitting routed.
        """
        self.shards = list(shards)
        self.states = ShardStates(states)
        self.scored: dict[int, ScoredShard] = {}
        self.routed = dict(routed or {})
        self.ids_made_up = any(one.shared_ids is not None for one in self.routed.values())

    @property
    def all_scored(self) -> bool:
        """Is the scored part of every shard stored?"""
        return len(self.scored) == len(self.shards)

    @property
    def all_routed(self) -> bool:
        """Are the rows of every shard grouped by model on disk, and those of earlier sittings checked?"""
        unchecked = self.states.count(ShardState.UNCHECKED, ShardState.CHECKING)
        return not unchecked and len(self.routed) == len(self.shards)

    @property
    def all_committed(self) -> bool:
        """Is every shard committed?"""
        return self.states.all_are(ShardState.COMMITTED)

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rows_scored(self) -> int:
        """Rows in the shards that are scored."""
        return sum(scored.rows for scored in self.scored.values())

    def add_scored(self, scored: ScoredShard) -> None:
        """The scored part of a shard is stored."""
        if self.states[scored.index] is ShardState.SCORING:
            self.states.move(scored.index, ShardState.SCORED)
        self.scored[scored.index] = scored

    def add_routed(self, routed: RoutedShard) -> None:
        """The rows of a shard are grouped by model on disk."""
        self.routed[routed.index] = routed
        if self.states[routed.index] is ShardState.ROUTING:
            self.states.move(routed.index, ShardState.ROUTED)
        if routed.shared_ids is not None and not self.ids_made_up:
            # Only now is it known that ids repeat: what was committed before is committed again, with made-up ids.
            self.ids_made_up = True
            self.states.move_all(self.states.of(ShardState.COMMITTED), ShardState.ANSWERED)

    def add_committed(self, index: int, committed: Committed) -> None:
        """A shard was committed. It is committed again if by now it is known that ids repeat."""
        same_ids = committed.ids_made_up == self.ids_made_up
        self.states.move(index, ShardState.COMMITTED if same_ids else ShardState.ANSWERED)
        if same_ids:
            _log.info(
                "shard %d is committed: %d of %d", index, self.states.count(ShardState.COMMITTED), len(self.states)
            )

    def committable(self) -> list[int]:
        """Answered shards that are scored, if those whose answers they share are answered too."""
        return [
            i
            for i in self.states.of(ShardState.ANSWERED)
            if i in self.scored and i in self.routed and all(map(self._is_answered, self.routed[i].depends))
        ]

    def waits_for_scores(self) -> bool:
        """Is there an answered shard whose scored part was lost, so that it cannot be committed yet?"""
        return any(i not in self.scored for i in self.states.of(ShardState.ANSWERED))

    def open_after_routing(self) -> list[int]:
        """Shards that are routed and not committed."""
        return [i for i in sorted(self.routed) if self.states[i] is not ShardState.COMMITTED]

    def notes(self) -> tuple[Note, ...]:
        """What a reader should know of the rows that were scored."""
        shared = (self.routed[i].shared_ids for i in sorted(self.routed))
        return summed_notes((self.scored[i].notes for i in sorted(self.scored)), shared)

    def _is_answered(self, row: int) -> bool:
        return self.states[index_of_row(self.shards, row)] in _ANSWERED


def find_run_shards(
    job: ResolvedJob,
    sources: Sequence[Source],
    directory: RunDirectory,
    map: Mapper,  # noqa: A002 - it stands in for the builtin
    *,
    retry_failed: bool,
) -> RunShards:
    """Cut the input into shards if no earlier sitting did, and see how far each shard has come.

    Discards the plan, with all that followed from it, if the job asks for another one.

    Args:
        map: runs a function on many shards at once.
        retry_failed: shards with failed rows are not finished.

    Raises:
        InputError: the input is empty, lacks a column that the job names, or has changed since it was cut.
        StorageError: something could not be stored or removed.
        DamagedError: a file is damaged.
    """
    layout = directory.layout
    put_back_if_idle(layout)
    if directory.manifest.shards is None:
        found = find_input(job.spec, layout.spool, map=map, sources=sources)
        directory.set_shards([to_stored(shard) for shard in found])
    shards = _shards_to_work_on(directory, sources)
    # Without `plan.json`, what the lost plan decided cannot be compared with what the next one decides.
    if directory.plan_changed or directory.read_plan() is None:
        directory.discard_plan()
    stored = (stored_routing(layout, shard.index, shard.first_row) for shard in shards)
    routed = {one.index: one for one in stored if one is not None}
    ids_made_up = any(one.shared_ids is not None for one in routed.values())
    endings = suffixes(job.spec.output)

    def state_of(index: int) -> ShardState:
        record = read_commit(layout, index)
        if (
            record is not None
            and record.ids_made_up == ids_made_up
            and has_parts(layout, index, record, endings)
            and _sends_nothing(record, job.prices, retry_failed=retry_failed)
        ):
            return ShardState.COMMITTED
        if index in routed:
            return ShardState.UNCHECKED
        return ShardState.SCORED if layout.scored(index).exists() else ShardState.UNSCORED

    states = [state_of(shard.index) for shard in shards]
    if len(routed) < len(shards):
        check_hash_key(job.spec, shards)
    if any(not layout.scored(shard.index).exists() for shard in shards):
        refill_spool(job.spec.input, layout.spool, shards, sources, map=map)
    return RunShards(shards, states, routed)


def _sends_nothing(record: Committed, prices: Mapping[str, Price | None], *, retry_failed: bool) -> bool:
    """Does a committed shard have no row left to send?"""
    statuses = Ledger.from_json(record.ledger, prices).statuses
    return not statuses["unsent"] and not (retry_failed and statuses["failed"])


def _shards_to_work_on(directory: RunDirectory, sources: Sequence[Source]) -> list[Shard]:
    """All shards of the run; where the input has changed, those at its beginning that were scored before that.

    Shards are routed in input order, so nothing was ever sent of the others.

    Raises:
        InputError: a file is no longer among the sources, or none of a changed input was scored.
    """
    layout, stored = directory.layout, directory.manifest.shards or ()
    if not directory.input_changed:
        return from_stored(stored, sources, layout.spool)
    scored = list(takewhile(lambda shard: layout.scored(shard["index"]).exists(), stored))
    if not scored:
        raise InputError("the input has changed, and nothing of it was read before that; --fresh starts a new run")
    return from_stored(scored, sources, layout.spool, are_read=False)


def note_on_changed_input(directory: RunDirectory, shards: Sequence[Shard]) -> str:
    """What the report of a run says whose input has changed."""
    rows, total = sum(shard.rows for shard in shards), sum(shard["rows"] for shard in directory.manifest.shards or ())
    return (
        f"the input has changed since the run began: the results have the {rows:,} rows that were read before that, "
        f"of {total:,}; put the input back, and rerun the same command without --finish to resume"
    )
