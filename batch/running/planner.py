"""Chooses a model for each row of the scored shards, in input order, as soon as the plan allows."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch.errors import InputError
from batch.planning.first_occurrences import NO_ROW
from batch.planning.routing import DuplicateRequests, deciding_scores
from batch.planning.shared_ids import SharedIds
from batch.planning.solve import solve
from batch.reading.columns import ERROR_MESSAGE
from batch.reading.shard import Shard
from batch.running.row_verdicts import RowVerdicts, first_faults
from batch.running.stages import RouteTask, ScoredShard, load_planned
from batch.runs.affinity_keys import stored_hash_key
from batch.runs.directory import RunDirectory
from batch.runs.parts import read_part
from batch.runs.schemas import PLACE_COLUMNS
from schemas.job import JobSpec
from schemas.plans import Plan, SharePlanSpec

# Shards whose columns for messages about ids are kept in memory.
_SHARDS_KEPT = 16


class Planner:
    """Applies a plan to scored shards.

    It decides a shard as soon as that shard and all earlier ones are scored. With a share plan that is not solved yet,
    or in a job that refuses invalid rows, it waits until all shards are scored.

    While the planner waits for all shards, it holds 4 bytes of memory for each row and 24 bytes for each id of the
    input. Afterwards it holds 24 bytes for each request whose answer may be shared. With a fixed cutoff it does not
    wait, and holds the ids and the requests at the same time.
    """

    def __init__(self, job: JobSpec, shards: Sequence[Shard], directory: RunDirectory, routed: Collection[int]) -> None:
        """Read the plan, if an earlier sitting has solved it.

        Args:
            shards: all of the input.
            routed: shards that an earlier sitting has grouped by model on disk. The planner reads their rows, because
                later rows may repeat their ids or share their answers, but `take` does not yield them again.
        """
        self._job = job
        self._names = tuple(model.name for model in job.models)
        self._shards = shards
        self._directory = directory
        self._routed = routed
        self._scored: dict[int, ScoredShard] = {}
        self._looked_at = 0
        self._decided = 0
        self._verdicts = RowVerdicts(job.input, shards, self._places)
        self._lines: dict[int, Any] = {}
        self._requests = DuplicateRequests(job.dispatch.dedup)
        self._repeats: dict[int, _Repeats] = {}
        self._shared: dict[int, SharedIds] = {}
        self._scores: list[NDArray[np.float32]] = []
        self._plan = directory.read_plan()
        self._refuses = job.input.on_invalid == "fail"
        self._solves = isinstance(job.plan, SharePlanSpec) and self._plan is None

    def offer(self, scored: ScoredShard) -> None:
        """Tell the planner that a shard has been scored."""
        self._scored[scored.index] = scored

    def take(self) -> Iterator[RouteTask]:
        """Yield the tasks of the shards that can be decided now; each shard is yielded once.

        Each task is made only when the caller takes it. A caller that stops early gets the rest from a later call.

        Raises:
            InputError: a row is invalid and the job refuses such input; nothing has been routed then.
        """
        if len(self._routed) == len(self._shards):
            return
        while self._looked_at in self._scored:
            self._look_at(self._looked_at)
            self._looked_at += 1
        if (self._refuses or self._solves) and self._looked_at < len(self._shards):
            return
        if self._plan is None:
            self._solve()
        while self._decided < self._looked_at:
            routing = self._decide(self._decided)
            self._decided += 1
            if routing.index not in self._routed:
                yield routing

    def _look_at(self, index: int) -> None:
        part = load_planned(self._directory.layout, index, self._names)
        repeats_id_of, shared = self._verdicts.look(index, part)
        if shared is not None:
            self._shared[index] = shared
        if self._refuses:
            self._refuse_faults(index, repeats_id_of)
        if self._solves:
            self._scores.append(deciding_scores(part, repeats_id_of))
        self._repeats[index] = _Repeats.of(repeats_id_of)
        if index == len(self._shards) - 1:
            # This frees the memory of the ids for the requests whose answers may be shared.
            self._verdicts.forget()

    def _refuse_faults(self, index: int, repeats_id_of: NDArray[np.int64]) -> None:
        duplicate_ids = self._verdicts.messages(index, repeats_id_of)
        if self._scored[index].first_fault is None and not duplicate_ids:
            return
        messages = read_part(self._directory.layout.scored(index), [ERROR_MESSAGE])[ERROR_MESSAGE]
        (fault,) = first_faults(messages.to_pylist(), duplicate_ids, 1)
        raise InputError(f"{fault}; input.on_invalid is `fail`, so nothing was sent")

    def _places(self, index: int) -> Any:
        """Return the columns of a shard that messages about ids need.

        Most messages name rows of few shards, so the columns of the last few shards read are kept in memory.
        """
        if index not in self._lines:
            if len(self._lines) == _SHARDS_KEPT:
                del self._lines[next(iter(self._lines))]
            self._lines[index] = read_part(self._directory.layout.scored(index), PLACE_COLUMNS)
        return self._lines[index]

    def _solve(self) -> None:
        scores = np.concatenate(self._scores) if self._scores else np.empty(0, np.float32)
        self._scores.clear()
        self._plan = solve(self._job.plan, self._names, scores, np.arange(len(scores), dtype=np.int64))
        self._directory.write_plan(self._plan)

    def _decide(self, index: int) -> RouteTask:
        assert self._plan is not None
        part = load_planned(self._directory.layout, index, self._names)
        repeats_id_of = self._repeats.pop(index).spread(len(part.row))
        rows = self._requests.route(part, repeats_id_of, self._plan, self._names)
        return RouteTask(
            layout=self._directory.layout,
            index=index,
            models=self._names,
            rows=rows,
            key=stored_hash_key(self._job.dispatch),
            duplicate_ids=self._verdicts.messages(index, repeats_id_of),
            shared_ids=self._shared.get(index),
        )

    @property
    def shared_ids(self) -> list[SharedIds]:
        """The repeating ids from columns that no setting names, of the shards examined so far, in input order."""
        return [self._shared[index] for index in sorted(self._shared)]

    @property
    def plan(self) -> Plan | None:
        """The solved plan; `None` while it waits for scores."""
        return self._plan


class _Repeats(NamedTuple):
    """The rows of a part that repeat an id, which are few, and the earlier row of each."""

    places: NDArray[np.int64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, repeats_id_of: NDArray[np.int64]) -> "_Repeats":
        """Keep of an array of earlier rows only the entries that are not NO_ROW."""
        places = np.flatnonzero(repeats_id_of != NO_ROW)
        return cls(places, repeats_id_of[places])

    def spread(self, count: int) -> NDArray[np.int64]:
        """Rebuild the array, of length `count`."""
        repeats_id_of = np.full(count, NO_ROW, np.int64)
        repeats_id_of[self.places] = self.rows
        return repeats_id_of
