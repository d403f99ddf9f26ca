"""The steps of a run as functions of one shard: what Ray tasks execute, and the inline engine too.

Arguments are small and picklable; rows travel through files of the run directory, not through arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batch.costs.prices import Price
from batch.costs.tokens import counter
from batch.environment import NO_ENVIRONMENT, Environment, SpendingRecord
from batch.errors import DamagedError
from batch.planning.routing import PlannedPart, RoutedRows
from batch.planning.shared_ids import SharedIds
from batch.reading.columns import DETERMINISTIC, ERROR_KIND, ERROR_MESSAGE, HASH, HASH_BYTES, ID, ID_FOUND, ID_HASH, ROW
from batch.reading.formats.without_pandas import leave_pandas_out
from batch.reading.notes import Note, notes_from_metadata
from batch.reading.read import read_shard
from batch.reading.shard import Shard
from batch.running.scorer import Scorer
from batch.runs.affinity_keys import columns_for_hash_key, with_affinity_keys
from batch.runs.committed import Committed
from batch.runs.layout import Layout
from batch.runs.output.commit import commit_shard
from batch.runs.output.other_shards import OtherShards
from batch.runs.parts import check_part, read_scored, write_part, write_scored
from batch.runs.routing_record import RoutingRecord, read_routing_record, write_routing_record
from batch.runs.schemas import (
    OWN_CUTOFF,
    PINNED,
    PLANNED_COLUMNS,
    REQUEST_COLUMNS,
    SCORE,
    SUMMARY_COLUMNS,
    routed_schema,
)
from schemas.embedders import EndpointEmbedderSpec
from schemas.job import InputSpec, JobSpec, OutputSpec
from schemas.routers import EmbeddingRouterSpec


@dataclass(frozen=True, slots=True)
class ReadTask:
    """One shard to read."""

    layout: Layout
    shard: Shard
    spec: InputSpec
    count: Literal["exact", "estimate"]
    """How prompt tokens are counted."""
    count_for: str
    """The model whose tokenizer counts."""


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """What a scorer is built from; it pickles."""

    job: JobSpec
    heavy: bool
    """Does the router load a model, so that it should stay loaded between shards?"""
    spending: SpendingRecord | None = None
    """Where an embedder's spending is recorded, and how much it may be."""

    @property
    def calls_endpoints(self) -> bool:
        """Does the router hold limits of endpoints, so that there may be only one of it?"""
        router = self.job.router
        return isinstance(router, EmbeddingRouterSpec) and isinstance(router.embedder, EndpointEmbedderSpec)

    def build(self, threads: int | None = None, environment: Environment = NO_ENVIRONMENT) -> Scorer:
        """Build the scorer, which loads the router."""
        return Scorer.for_job(self.job, threads=threads, environment=replace(environment, spending=self.spending))


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """What the pipeline keeps of a scored shard: counts and notes, not its rows."""

    index: int
    rows: int
    invalid: int
    first_fault: str | None
    """Message of the first invalid row."""
    notes: tuple[Note, ...] = ()
    """Notes on its rows, for the report."""


def read_table(reading: ReadTask) -> Any:
    """Read the rows of a shard into an Arrow table."""
    leave_pandas_out()
    return read_shard(reading.shard, reading.spec, counter(reading.count, reading.count_for))


def score_table(reading: ReadTask, table: Any, scorer: Scorer) -> ScoredShard:
    """Score a table that was read and store the result. Once it is stored, none of its rows is scored again."""
    return store_scored(reading, score_rows(reading, table, scorer))


def score_rows(reading: ReadTask, table: Any, scorer: Scorer) -> Any:
    """Return the table of a shard with the columns of a scored part added."""
    return scorer.score(table, reading.shard.name)


def store_scored(reading: ReadTask, scored: Any) -> ScoredShard:
    """Store the scored rows of a shard in the run directory, which is on the machine where this runs."""
    write_scored(reading.layout, reading.shard.index, scored)
    return summary(reading.shard.index, scored)


def read_and_score(reading: ReadTask, scorer: Scorer) -> ScoredShard:
    """Read, score and store one shard."""
    return score_table(reading, read_table(reading), scorer)


def summary(index: int, scored: Any) -> ScoredShard:
    """Make from a scored part what the pipeline keeps of it."""
    messages = scored[ERROR_MESSAGE]
    invalid = scored.num_rows - messages.null_count
    first = next(message for message in messages.to_pylist() if message is not None) if invalid else None
    return ScoredShard(index, scored.num_rows, invalid, first, notes_from_metadata(scored.schema.metadata))


def stored_summary(layout: Layout, index: int) -> ScoredShard:
    """Make the same from a scored part that an earlier sitting stored. Raises DamagedError."""
    return summary(index, read_scored(layout, index, SUMMARY_COLUMNS, whole=False))


def load_planned(layout: Layout, index: int, models: Sequence[str]) -> PlannedPart:
    """Read the columns of a scored part that planning looks at. Raises DamagedError."""
    return planned_part(read_scored(layout, index, PLANNED_COLUMNS), models)


def planned_part(part: Any, models: Sequence[str]) -> PlannedPart:
    """Return the columns of a scored table that planning looks at, as NumPy arrays."""
    count = part.num_rows
    names = {name: position for position, name in enumerate(models)}
    pinned = [names.get(name, -1) if name is not None else -1 for name in part[PINNED].to_pylist()]
    hashes = b"".join(value or bytes(HASH_BYTES) for value in part[HASH].to_pylist())
    return PlannedPart(
        row=part[ROW].to_numpy(),
        score=_floats(part[SCORE]),
        own_cutoff=_floats(part[OWN_CUTOFF]),
        pinned=np.array(pinned, np.int16),
        valid=part[ERROR_KIND].is_null().to_numpy(),
        id_hash=part[ID_HASH].fill_null(0).to_numpy(),
        has_own_id=part[ID_HASH].is_valid().to_numpy(),
        # A part that an older version scored knows only ids that make a row invalid when they repeat.
        id_asked_for=part[ID_FOUND].is_null().to_numpy() if ID_FOUND in part.schema.names else np.ones(count, bool),
        content_hash=np.frombuffer(hashes, np.uint64).reshape(count, 2),
        deterministic=part[DETERMINISTIC].to_numpy(),
    )


def _floats(column: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = column.to_numpy().astype(np.float32, copy=False)
    return values


@dataclass(frozen=True, slots=True)
class RouteTask:
    """One shard to group by model, with what planning decided for its rows."""

    layout: Layout
    index: int
    models: tuple[str, ...]
    rows: RoutedRows
    key: str | None = None
    """What rows take their affinity key from, if the requests do not hold it; `None`: nothing to add."""
    duplicate_ids: Mapping[int, str] = field(default_factory=dict)
    """The message for each row that repeats an id, by its position in the shard."""
    shared_ids: SharedIds | None = None
    """Ids that no setting names and that repeat."""


@dataclass(frozen=True, slots=True)
class RoutedShard:
    """What the pipeline keeps of a shard whose rows are grouped by model on disk."""

    index: int
    routed: Mapping[str, int]
    """Rows to send, by model."""
    depends: tuple[int, ...]
    """Rows of other shards whose answers rows of this shard share."""
    shared_ids: SharedIds | None = None
    """Ids that no setting names and that repeat."""


def route(routing: RouteTask) -> RoutedShard:
    """Group the rows of a shard by model on disk. Raises DamagedError if the scored part is not as it was written."""
    key = routing.key
    part = read_scored(routing.layout, routing.index, {*REQUEST_COLUMNS, ID, *columns_for_hash_key(key)})
    if key is not None:
        part = with_affinity_keys(part, key)
    columns = routed_schema(key).names
    decided = routing.rows
    sent = decided.shares_answer_of < 0
    routed, parts = {}, {}
    for position, model in enumerate(routing.models):
        mask = (decided.model == position) & sent
        if mask.any():
            path = routing.layout.routed(model, routing.index)
            parts[model] = write_part(path, part.select(columns).filter(mask))
            routed[model] = int(mask.sum())
    rows = part[ROW].to_numpy()
    record = RoutingRecord(
        routed,
        shares_answer_of={int(rows[i]): int(decided.shares_answer_of[i]) for i in np.flatnonzero(~sent)},
        duplicate_ids={int(rows[i]): message for i, message in routing.duplicate_ids.items()},
        parts=parts,
        shared_ids=routing.shared_ids,
    )
    write_routing_record(routing.layout, routing.index, record)
    elsewhere = sorted(set(record.shares_answer_of.values()).difference(rows.tolist()))
    return RoutedShard(routing.index, routed, tuple(elsewhere), routing.shared_ids)


def stored_routing(layout: Layout, index: int, first_row: int) -> RoutedShard | None:
    """What an earlier sitting routed of a shard; `None`: nothing, or some of its files are missing."""
    record = read_routing_record(layout, index)
    if record is None or not all(layout.routed(model, index).exists() for model in record.routed):
        return None
    depends = tuple(sorted({row for row in record.shares_answer_of.values() if row < first_row}))
    return RoutedShard(index, record.routed, depends, record.shared_ids)


def check_routed(layout: Layout, index: int) -> int:
    """Compare the routed parts of a shard, which an earlier sitting wrote, with their checksums before they are sent.

    Returns:
        The shard's index.

    Raises:
        DamagedError: a part is not as it was written; it can be made again from the scored part and the plan.
    """
    record = read_routing_record(layout, index)
    if record is None:
        path = layout.routing_record(index)
        raise DamagedError(f"{path} is damaged; rerun the same command to make it again", path=str(path))
    for model, expected in record.parts.items():
        check_part(layout.routed(model, index), expected)
    return index


@dataclass(frozen=True, slots=True)
class CommitTask:
    """One shard to commit."""

    layout: Layout
    index: int
    prices: Mapping[str, Price | None]
    """Of every model; `None`: unknown."""
    fallbacks: Mapping[str, Sequence[str]]
    output: OutputSpec
    first_rows: tuple[int, ...]
    """First row of each shard, for answers shared across shards."""
    make_up_ids: str | None = None
    """As `batch.runs.output.scored_rows.scored_rows` takes it."""


def commit(committing: CommitTask) -> Committed:
    """Write a shard's part of the output."""
    task = committing
    with OtherShards(task.layout, task.first_rows, task.prices, task.fallbacks) as others:
        return commit_shard(
            task.layout,
            task.index,
            prices=task.prices,
            fallbacks=task.fallbacks,
            output=task.output,
            find_in_other_shards=others.find,
            make_up_ids=task.make_up_ids,
        )
