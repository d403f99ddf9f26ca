"""`calibrate`: scores a job's input, sends nothing, and finds cutoffs that send given shares to the strongest model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batch.errors import InputError, SpecError
from batch.planning.cutoffs import cutoff_for
from batch.planning.routing import DuplicateIds, deciding_scores
from batch.running.stages import load_planned
from jobs.commands.dry_run import DryScoring, dry_scoring
from jobs.terminal.progress import ProgressDisplay
from schemas.calibration import CalibratedCutoff, Calibration
from schemas.job import JobSpec
from schemas.plans import SharePlanSpec


def calibrate_job(
    job: JobSpec, strong: Sequence[float], *, sample: int | None = None, progress: ProgressDisplay | None = None
) -> Calibration:
    """Find for each share the cutoff that sends it to the strongest model; the job's own plan is ignored.

    It needs no keys and calls no endpoints, except those of a router's embedder. It holds 28 bytes per row in memory.

    Args:
        strong: shares from 0 to 1.
        sample: read about so many rows, the same part of every shard.
        progress: shows how far scoring is.

    Raises:
        SpecError: the job or its input is wrong, or has no row that a cutoff would decide.
    """
    if len(job.models) == 1:
        raise SpecError(f"models: there is only {job.models[0].name}, so no cutoff divides anything; give another")
    # With a plan that pins, no row would be scored.
    job = job.model_copy(update={"plan": SharePlanSpec(strategy="share", strong=0.5)})
    with dry_scoring(job, sample=sample, progress=progress) as dry:
        for _ in dry.scored():
            pass
        scores = _deciding(dry)
        spent = dry.spent()
    if not len(scores):
        raise InputError(
            f"input: none of the {dry.seen:,} rows looked at has a score to cut: they are invalid or repeated, or name "
            "their own model; `batchrouter check` says which, and `input.row_models: ignore` takes their choice away"
        )
    return Calibration(
        name=job.name,
        router=job.router.kind,
        total=dry.total,
        sampled=dry.sampled,
        scored=len(scores),
        strongest=job.models[-1].name,
        cutoffs=tuple(_calibrated(share, scores) for share in strong),
        notes=spent,
    )


def _deciding(dry: DryScoring) -> NDArray[np.float32]:
    """The scores of all rows that a plan would decide about."""
    names, ids = [model.name for model in dry.job.models], DuplicateIds()
    found = []
    for shard in dry.shards:
        part = load_planned(dry.directory.layout, shard.index, names)
        scores = deciding_scores(part, ids.look(part)[0])
        found.append(scores[np.isfinite(scores)])
    return np.concatenate(found)


def _calibrated(strong: float, scores: NDArray[np.float32]) -> CalibratedCutoff:
    cut = cutoff_for(strong, scores)
    return CalibratedCutoff(
        strong=strong, cutoff=cut.cutoff, sends=cut.above / len(scores), rows=cut.above, tied=cut.tied
    )
