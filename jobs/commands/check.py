"""`check`: the whole file and every endpoint looked at before a cent is spent."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.costs.prices import prices_for
from batch.errors import SpecError
from batch.planning.shared_ids import SharedIds
from batch.reading.columns import ERROR_MESSAGE
from batch.reading.notes import Note, notes_from_metadata
from batch.reading.read import read_shard
from batch.routers.registry import build_router
from batch.running.find_input import find_input
from batch.running.row_verdicts import FAULTS_SHOWN, RowVerdicts, first_faults, summed_notes
from batch.running.scorer import Scorer
from batch.running.stages import planned_part
from batch.runs.output.local import check_writable
from batch.runs.schemas import PLACE_COLUMNS
from jobs.commands.output_overlap import check_output_not_input
from jobs.commands.reachability import models_listed
from jobs.environment import embedder_of, missing_keys, resolve_endpoints, set_library_defaults, with_embedder
from schemas.endpoints import ModelSpec
from schemas.job import JobSpec


@dataclass(frozen=True, slots=True)
class EndpointFinding:
    """What an endpoint said."""

    model: str
    url: str
    usable: bool
    said: str


@dataclass
class Findings:
    """What a check found."""

    rows: int = 0
    """Rows in the input."""
    invalid: int = 0
    """Rows that could not be sent."""
    faults: list[str] = field(default_factory=list)
    """One line for each of the first invalid rows."""
    problems: list[str] = field(default_factory=list)
    """What would stop a run before it starts."""
    warnings: list[str] = field(default_factory=list)
    """What would not."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know of the rows: what was found by itself, and what is not sent."""
    endpoints: list[EndpointFinding] = field(default_factory=list)
    """In the job's order."""


def check_job(job: JobSpec) -> Findings:
    """Read and validate every row, build the router, look at output, keys, prices and endpoints. Sends no prompt."""
    set_library_defaults()
    found = Findings()
    models: tuple[ModelSpec, ...] = ()
    try:
        models = resolve_endpoints(job.models)
        job = with_embedder(job)
    except SpecError as error:
        found.problems.append(str(error))
    found.problems += missing_keys(job, models)
    _check_rows(job, found)
    try:
        check_writable(job.output)
        check_output_not_input(job)
    except SpecError as error:
        found.problems.append(str(error))
    for name, price in prices_for(job.models).items():
        if price is None:
            found.warnings.append(f"the price of {name} is not known: costs leave it out; give models.{name}.price")
            if job.dispatch.budget_usd is not None:
                found.problems.append(f"dispatch.budget_usd needs a price for {name}")
    embedder = embedder_of(job)
    _check_endpoints(models if embedder is None else (*models, embedder), found)
    return found


def _check_rows(job: JobSpec, found: Findings) -> None:
    """Every row through reading and the rows' own choices of model."""
    try:
        build_router(job.router, tuple(model.name for model in job.models), job.seed)
    except SpecError as error:
        found.problems.append(str(error))
    try:
        # The plan's scores cost the most and tell nothing about whether a row can be sent.
        scorer = Scorer(job.router, job.models, row_models=job.input.row_models, plan_scores=False)
        with tempfile.TemporaryDirectory(prefix="batchrouter-") as spool:
            shards = find_input(job, Path(spool))
            places: dict[int, Any] = {}
            verdicts = RowVerdicts(job.input, shards, places.__getitem__)
            notes: list[tuple[Note, ...]] = []
            shared: list[SharedIds | None] = []
            names = tuple(model.name for model in job.models)
            for shard in shards:
                table = read_shard(shard, job.input, lambda texts: [0] * len(texts))
                scored = scorer.score(table, shard.name)
                places[shard.index] = scored.select(PLACE_COLUMNS)
                verdict = verdicts.look(shard.index, planned_part(scored, names))
                duplicate_ids = verdicts.messages(shard.index, verdict.repeats_id_of)
                messages = scored[ERROR_MESSAGE]
                found.rows += shard.rows
                found.invalid += len(messages) - messages.null_count + len(duplicate_ids)
                found.faults += first_faults(messages.to_pylist(), duplicate_ids, FAULTS_SHOWN - len(found.faults))
                notes.append(notes_from_metadata(scored.schema.metadata))
                shared.append(verdict.shared)
            found.notes += map(str, summed_notes(notes, shared))
    except SpecError as error:
        found.problems.append(str(error))
    if found.invalid and job.input.on_invalid == "fail":
        found.problems.append(f"{found.invalid} rows are invalid, and input.on_invalid is `fail`")


def _check_endpoints(models: Sequence[ModelSpec], found: Findings) -> None:
    asked = [(model, endpoint) for model in models for endpoint in model.endpoints]
    said = models_listed([endpoint for _, endpoint in asked])
    found.endpoints += [
        EndpointFinding(model.name, endpoint.name or endpoint.place(model.name), usable, answer)
        for (model, endpoint), (usable, answer) in zip(asked, said, strict=True)
    ]
    for model, endpoint in asked:
        if endpoint.lacks_api_version:
            found.warnings.append(
                f"model {model.name}: Azure's deployments want an api_version: give one to {endpoint.place(model.name)}"
            )
    for model in models:
        mine = [endpoint.usable for endpoint in found.endpoints if endpoint.model == model.name]
        if not any(mine):
            what = "its endpoint is not usable" if len(mine) == 1 else f"none of its {len(mine)} endpoints is usable"
            found.problems.append(f"model {model.name}: {what}")
        elif not all(mine):
            unusable = len(mine) - sum(mine)
            found.warnings.append(f"model {model.name}: {unusable} of its {len(mine)} endpoints are not usable")
