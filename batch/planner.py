"""Turns scored shards into routings, in input order, as soon as the plan allows."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from batch.errors import InputError
from batch.planning.routing import Ids, Requests, deciding_scores
from batch.planning.solve import solve
from batch.reading.shard import Shard
from batch.runs.directory import RunDirectory
from batch.runs.keys import stored_key
from batch.stages import Routing, ScoredShard, load_planned
from schemas.job import JobSpec
from schemas.plans import Plan, SharePlanSpec


class Planner:
    """A fixed cutoff is applied as shards come. A share waits for all scores, and so does a job that refuses bad rows.

    Holds 4 bytes a row while it waits, and 24 bytes for each id and each request that may be shared.
    """

    def __init__(self, job: JobSpec, shards: Sequence[Shard], directory: RunDirectory, routed: Collection[int]) -> None:
        """
        Args:
            routed: shards that an earlier sitting has grouped on disk; they are looked at again only for the sake of
                later ones.
        """
        self._job = job
        self._names = tuple(model.name for model in job.models)
        self._shards = shards
        self._directory = directory
        self._routed = routed
        self._scored: dict[int, ScoredShard] = {}
        self._looked_at = 0
        self._ids = Ids()
        self._requests = Requests(job.dispatch.dedup)
        self._repeats: dict[int, NDArray[np.int64]] = {}
        self._scores: list[NDArray[np.float32]] = []
        self._plan = directory.read_plan()
        self._refuses = job.input.on_invalid == "fail"
        self._solves = isinstance(job.plan, SharePlanSpec) and self._plan is None

    @property
    def done(self) -> bool:
        """Has every shard been routed?"""
        return len(self._routed) == len(self._shards) or (self._looked_at == len(self._shards) and not self._repeats)

    def offer(self, scored: ScoredShard) -> None:
        """A shard has been scored."""
        self._scored[scored.index] = scored

    def take(self) -> list[Routing]:
        """Routings that can be decided now, each shard's once.

        Raises:
            InputError: the job refuses a row that was seen; nothing has been routed then.
        """
        if self.done:
            return []
        while self._looked_at in self._scored:
            self._look_at(self._looked_at)
            self._looked_at += 1
        if (self._refuses or self._solves) and self._looked_at < len(self._shards):
            return []
        if self._plan is None:
            self._solve()
        routings = [self._decide(index) for index in sorted(self._repeats)]
        return [routing for routing in routings if routing.index not in self._routed]

    def _look_at(self, index: int) -> None:
        part = load_planned(self._directory.layout, index, self._names)
        repeats = self._ids.repeats(part)
        if self._refuses:
            fault = self._scored[index].first_fault
            if fault is None and (repeats >= 0).any():
                row = int(part.row[repeats >= 0][0])
                fault = f"{self._shards[index].name}: the id of row {row} is that of an earlier row"
            if fault is not None:
                raise InputError(f"{fault}; input.on_invalid is `fail`, so nothing was sent")
        if self._solves:
            self._scores.append(deciding_scores(part, repeats))
        self._repeats[index] = repeats

    def _solve(self) -> None:
        scores = np.concatenate(self._scores) if self._scores else np.empty(0, np.float32)
        self._scores.clear()
        self._plan = solve(self._job.plan, self._names, scores, np.arange(len(scores), dtype=np.int64))
        self._directory.write_plan(self._plan)

    def _decide(self, index: int) -> Routing:
        assert self._plan is not None
        part = load_planned(self._directory.layout, index, self._names)
        rows = self._requests.route(part, self._repeats.pop(index), self._plan, self._names)
        key = stored_key(self._job.dispatch)
        return Routing(self._directory.layout, index, self._shards[index].name, self._names, rows, key)

    @property
    def plan(self) -> Plan | None:
        """The solved plan."""
        return self._plan
