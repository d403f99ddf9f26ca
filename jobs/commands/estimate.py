"""`estimate`: scores and plans a job for real, sends nothing, and estimates the cost and time of a run."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from batch.costs.estimate import ModelLoad, estimate
from batch.costs.prices import prices_for
from batch.reading.columns import ERROR_MESSAGE, MAX_TOKENS, PROMPT_TOKENS, URL
from batch.reading.notes import Note
from batch.running.planner import Planner
from batch.running.row_verdicts import FAULTS_SHOWN, first_faults, summed_notes
from batch.running.stages import RouteTask
from batch.runs.parts import read_part
from batch.runs.schemas import ESTIMATED_COLUMNS, PINNED
from jobs.commands.dry_run import dry_scoring
from jobs.commands.output_overlap import check_output_not_input
from jobs.terminal.progress import ProgressDisplay
from schemas.job import JobSpec
from schemas.openai_batch import EMBEDDINGS_URL
from schemas.reports import Estimate, RowCounts


@dataclass
class _Totals:
    """What the plan sends to each model, summed over shards, which come in input order."""

    loads: dict[str, ModelLoad] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def add(self, model: str, load: ModelLoad) -> None:
        """Add rows of `model`."""
        known = self.loads.get(model, ModelLoad(0, 0, 0))
        self.loads[model] = ModelLoad(
            known.rows + load.rows,
            known.prompt_tokens + load.prompt_tokens,
            known.max_tokens + load.max_tokens,
            known.unlimited + load.unlimited,
            known.embeddings + load.embeddings,
        )


def estimate_job(job: JobSpec, *, sample: int | None = None, progress: ProgressDisplay | None = None) -> Estimate:
    """Estimate `job`. It needs no keys and calls no endpoints, except those of a router's embedder.

    Args:
        sample: read about so many rows, the same part of every shard, and scale the result.
        progress: shows how far scoring is.

    Raises:
        SpecError: the job or its input is wrong.
    """
    # `check` and `run` do the same: an estimate of a job that cannot run would be worthless.
    check_output_not_input(job)
    totals = _Totals()
    notes: dict[int, tuple[Note, ...]] = {}
    with dry_scoring(job, sample=sample, progress=progress) as dry:
        planner = Planner(dry.job, dry.shards, dry.directory, frozenset())
        for scored in dry.scored():
            totals.statuses["invalid"] += scored.invalid
            notes[scored.index] = scored.notes
            planner.offer(scored)
            for routing in planner.take():
                _count(routing, totals)
        spent = dry.spent()
        plan = planner.plan
        assert plan is not None, "a plan is solved once every shard has been scored"
    total, factor = dry.total, dry.total / dry.seen
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
        sampled=dry.sampled,
        notes=[*(str(note) for note in summed_notes((notes[i] for i in sorted(notes)), planner.shared_ids)), *spent],
        faults=totals.faults,
    )


def _count(routing: RouteTask, totals: _Totals) -> None:
    part = read_part(routing.layout.scored(routing.index), ESTIMATED_COLUMNS)
    rows = routing.rows
    shared = rows.shares_answer_of >= 0
    totals.statuses["deduplicated"] += int(shared.sum())
    totals.statuses["invalid"] += len(routing.duplicate_ids)
    totals.faults += first_faults(
        part[ERROR_MESSAGE].to_pylist(), routing.duplicate_ids, FAULTS_SHOWN - len(totals.faults)
    )
    totals.statuses["pinned"] += int(part[PINNED].is_valid().to_numpy().sum())
    prompt_tokens = part[PROMPT_TOKENS].fill_null(0).to_numpy()
    most = part[MAX_TOKENS].fill_null(0).to_numpy()
    limited = part[MAX_TOKENS].is_valid().to_numpy()
    embeds = np.array([url == EMBEDDINGS_URL for url in part[URL].to_pylist()])
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
