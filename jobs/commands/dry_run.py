"""Scores a job's input, or a sample of it, in a temporary run directory; sends no row."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from batch.dispatch.snapshot import ProgressSnapshot
from batch.environment import SpendingRecord
from batch.reading.shard import Shard
from batch.routers.registry import kind_of
from batch.running.engine import Engine, Handle
from batch.running.find_input import find_input
from batch.running.stages import ReadTask, ScoredShard, ScoreTask
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import Fingerprint
from jobs.commands.run import engine_of
from jobs.commands.spending import embeddings_spent
from jobs.environment import now, set_library_defaults
from jobs.resolve import resolve_router
from jobs.terminal.progress import ProgressDisplay
from schemas.job import JobSpec

_RUN_EMBEDS_AGAIN = "; `run` pays for them again, unless `router.embedder.cache` keeps them"


@dataclass(frozen=True)
class DryScoring:
    """An input that is ready to be scored in a temporary run directory."""

    job: JobSpec
    directory: RunDirectory
    shards: Sequence[Shard]
    """The shards to score; for a sample, shortened to their first rows."""
    total: int
    """Rows in the whole input."""
    _engine: Engine
    _progress: ProgressDisplay | None

    @property
    def seen(self) -> int:
        """Rows that are scored."""
        return sum(shard.rows for shard in self.shards)

    @property
    def sampled(self) -> int | None:
        """Rows that are scored, if they are a sample; else `None`."""
        return self.seen if self.seen < self.total else None

    def scored(self) -> Iterator[ScoredShard]:
        """Score and store the shards; yields them in the order in which they finish."""
        record = SpendingRecord(self.directory.layout.embeddings)
        scoring = ScoreTask(self.job, heavy=kind_of(self.job.router).loads_model, spending=record)
        waiting = list(reversed(self.shards))
        pending: set[Handle] = set()
        done = 0
        self._show(done)
        while waiting or pending:
            while waiting and len(pending) < self._engine.slots:
                reading = ReadTask(
                    self.directory.layout, waiting.pop(), self.job.input, "exact", self.job.models[-1].name
                )
                pending.add(self._engine.score(reading, scoring))
            for handle in self._engine.wait(pending, 1.0):
                pending.discard(handle)
                scored: ScoredShard = self._engine.result(handle)
                done += scored.rows
                self._show(done)
                yield scored

    def spent(self) -> tuple[str, ...]:
        """One line about what scoring has paid to embedding endpoints so far; empty if it called none."""
        return embeddings_spent(self.directory.layout.embeddings, _RUN_EMBEDS_AGAIN)

    def _show(self, done: int) -> None:
        if self._progress is not None:
            self._progress.update(ProgressSnapshot("scoring", done, self.seen))


@contextmanager
def dry_scoring(
    job: JobSpec, *, sample: int | None = None, progress: ProgressDisplay | None = None
) -> Iterator[DryScoring]:
    """Prepare the scoring of `job`; everything is deleted when the block ends.

    It needs no keys except those of a router's embedder.

    Args:
        sample: score about so many rows, the same part of every shard.
        progress: shows how far scoring is.

    Raises:
        SpecError: the job or its input is wrong.
    """
    set_library_defaults()
    job = resolve_router(job)
    with tempfile.TemporaryDirectory(prefix="batchrouter-") as folder, engine_of(job, progress) as engine:
        asked = Fingerprint(plan={})
        with RunDirectory.open(
            Path(folder) / "run",
            asked,
            job=job.name,
            created=now().isoformat(timespec="seconds"),
            version=version("batchrouter"),
        ) as directory:
            shards = find_input(job, directory.layout.spool, map=engine.map)
            total = sum(shard.rows for shard in shards)
            yield DryScoring(job, directory, _sampled(shards, total, sample), total, engine, progress)


def _sampled(shards: Sequence[Shard], total: int, sample: int | None) -> list[Shard]:
    """The first rows of every shard: the same part of each, about `sample` rows together."""
    if sample is None or sample >= total:
        return list(shards)
    return [replace(shard, rows=max(1, round(shard.rows * sample / total))) for shard in shards]
