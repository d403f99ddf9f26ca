"""`estimate`: scores and plans a job for real, sends nothing, and says what a run would cost and take."""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from batch.costs.estimate import ModelLoad, estimate
from batch.costs.prices import prices_for
from batch.dispatch.snapshot import ProgressSnapshot
from batch.engine import Engine, Handle
from batch.pipeline import HEAVY_ROUTERS
from batch.planner import Planner
from batch.reading.shard import Shard
from batch.reading.shards import find_shards
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import Fingerprint
from batch.runs.parts import read_part
from batch.stages import Reading, Routing, ScoredShard, Scoring
from jobs.progress import Progress
from jobs.running import engine_of
from jobs.runtime import now, settle_environment, with_embedder
from schemas.job import JobSpec
from schemas.openai_batch import EMBEDDINGS_URL
from schemas.reports import Estimate, RowCounts


@dataclass
class _Totals:
    """What the plan sends where, summed over shards."""

    loads: dict[str, ModelLoad] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)

    def add(self, model: str, load: ModelLoad) -> None:
        """More rows for `model`."""
        known = self.loads.get(model, ModelLoad(0, 0, 0))
        self.loads[model] = ModelLoad(
            known.rows + load.rows,
            known.prompt_tokens + load.prompt_tokens,
            known.max_tokens + load.max_tokens,
            known.unlimited + load.unlimited,
            known.embeddings + load.embeddings,
        )


def estimate_job(job: JobSpec, *, sample: int | None = None, progress: Progress | None = None) -> Estimate:
    """Estimate `job`; no key is needed and no endpoint is looked at, but for those of a router's embedder.

    Args:
        sample: look at about so many rows, the same part of every shard, and scale.
        progress: told how far scoring is.

    Raises:
        SpecError: the job or its input is wrong.
    """
    settle_environment()
    job = with_embedder(job)
    with tempfile.TemporaryDirectory(prefix="batchrouter-") as folder, engine_of(job, progress) as engine:
        asked = Fingerprint(plan={})
        with RunDirectory.open(
            Path(folder) / "run",
            asked,
            job=job.name,
            created=now().isoformat(timespec="seconds"),
            version=version("batchrouter"),
        ) as directory:
            shards = find_shards(job.input, directory.layout.spool, map=engine.map)
            total = sum(shard.rows for shard in shards)
            looked_at = _sampled(shards, total, sample)
            planner = Planner(job, looked_at, directory, frozenset())
            totals, seen, done = _Totals(), sum(shard.rows for shard in looked_at), 0
            if progress is not None:
                progress.update(ProgressSnapshot("scoring", done, seen))
            for scored in _scored(job, looked_at, directory, engine):
                totals.statuses["invalid"] += scored.invalid
                done += scored.rows
                if progress is not None:
                    progress.update(ProgressSnapshot("scoring", done, seen))
                planner.offer(scored)
                for routing in planner.take():
                    _count(routing, totals)
            plan = planner.plan
            assert plan is not None, "a plan is solved once every shard has been scored"
    factor = total / seen
    invalid = round(totals.statuses["invalid"] * factor)
    return estimate(
        name=job.name,
        models=job.models,
        prices=prices_for(job.models),
        loads={model: load.scaled(factor) for model, load in totals.loads.items()},
        rows=RowCounts(
            total=total,
            ok=total - invalid,
            failed=0,
            invalid=invalid,
            unsent=0,
            deduplicated=round(totals.statuses["deduplicated"] * factor),
        ),
        plan=plan,
        pinned=round(totals.statuses["pinned"] * factor),
        sampled=seen if seen < total else None,
    )


def _sampled(shards: Sequence[Shard], total: int, sample: int | None) -> list[Shard]:
    """The first rows of every shard, as many of each as of the whole."""
    if sample is None or sample >= total:
        return list(shards)
    return [replace(shard, rows=max(1, round(shard.rows * sample / total))) for shard in shards]


def _scored(job: JobSpec, shards: Sequence[Shard], directory: RunDirectory, engine: Engine) -> Iterator[ScoredShard]:
    scoring = Scoring(job, heavy=job.router.kind in HEAVY_ROUTERS)
    waiting = list(reversed(shards))
    pending: set[Handle] = set()
    while waiting or pending:
        while waiting and len(pending) < engine.slots:
            reading = Reading(directory.layout, waiting.pop(), job.input, "exact", job.models[-1].name)
            pending.add(engine.score(reading, scoring))
        for handle in engine.wait(pending, 1.0):
            pending.discard(handle)
            yield engine.result(handle)


def _count(routing: Routing, totals: _Totals) -> None:
    part = read_part(routing.layout.scored(routing.index), ("prompt_tokens", "max_tokens", "url", "pinned"))
    rows = routing.rows
    shared = rows.same_as >= 0
    totals.statuses["deduplicated"] += int(shared.sum())
    totals.statuses["invalid"] += int((rows.repeats >= 0).sum())
    totals.statuses["pinned"] += int(part["pinned"].is_valid().to_numpy().sum())
    prompt_tokens = part["prompt_tokens"].fill_null(0).to_numpy()
    most = part["max_tokens"].fill_null(0).to_numpy()
    limited = part["max_tokens"].is_valid().to_numpy()
    embeds = np.array([url == EMBEDDINGS_URL for url in part["url"].to_pylist()])
    for position, model in enumerate(routing.models):
        mine = (rows.model == position) & ~shared
        totals.add(
            model,
            ModelLoad(
                rows=int(mine.sum()),
                prompt_tokens=int(prompt_tokens[mine].sum()),
                max_tokens=int(most[mine & ~embeds].sum()),
                unlimited=int((mine & ~limited & ~embeds).sum()),
                embeddings=int((mine & embeds).sum()),
            ),
        )
