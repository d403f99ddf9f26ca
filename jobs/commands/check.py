"""`check`: looks at the whole job and every endpoint before a run spends money."""

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from batch.costs.prices import prices_for
from batch.dispatch.balancing.balancers import build_balancer
from batch.dispatch.transports.registry import build_transport
from batch.errors import SpecError
from batch.planning.shared_ids import SharedIds
from batch.reading.columns import ERROR_MESSAGE
from batch.reading.notes import Note, notes_from_metadata
from batch.reading.read import read_shard
from batch.routers.registry import build_router
from batch.running.find_input import find_input
from batch.running.resolved_job import ResolvedJob
from batch.running.row_verdicts import FAULTS_SHOWN, RowVerdicts, first_faults, summed_notes
from batch.running.scorer import Scorer
from batch.running.stages import planned_part
from batch.runs.output.local import check_output_writable
from batch.runs.schemas import PLACE_COLUMNS
from jobs.commands.output_overlap import check_output_not_input
from jobs.commands.reachability import models_listed
from jobs.environment import key, set_library_defaults, wall_clock
from jobs.resolve import embedder_of, missing_keys, resolve_endpoints, resolve_router
from schemas.checks import CheckReport, EndpointCheck
from schemas.endpoints import ModelSpec
from schemas.imported import ImportSpec
from schemas.job import JobSpec


@dataclass(slots=True)
class _RowsRead:
    """What reading the input has shown so far; if a file cannot be read, what came before it counts."""

    rows: int = 0
    invalid: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_job(job: JobSpec) -> CheckReport:
    """Read and validate every row, build the router, look at output, keys, prices and endpoints. Sends no prompt."""
    set_library_defaults()
    problems: list[str] = []
    warnings: list[str] = []
    resolved = ResolvedJob(job, (), embedder_of(job))
    with _noted(problems):
        resolved = replace(resolved, models=resolve_endpoints(job.models))
        job = resolve_router(job)
        resolved = replace(resolved, spec=job, embedder=embedder_of(job))
    problems += missing_keys(resolved)
    with _noted(problems):
        build_router(job.router, tuple(model.name for model in job.models), job.seed)
    with _noted(problems):
        _build_own_classes(resolved)
    read = _RowsRead()
    with _noted(problems):
        _check_rows(job, read)
    if read.invalid and job.input.on_invalid == "fail":
        problems.append(f"{read.invalid} rows are invalid, and input.on_invalid is `fail`")
    with _noted(problems):
        check_output_writable(job.output)
        check_output_not_input(job)
    for name, price in prices_for(job.models).items():
        if price is None:
            warnings.append(f"the price of {name} is not known: costs leave it out; give models.{name}.price")
            if job.dispatch.budget_usd is not None:
                problems.append(f"dispatch.budget_usd needs a price for {name}")
    endpoints = _check_endpoints(resolved.called, problems, warnings)
    return CheckReport(
        rows=read.rows,
        invalid=read.invalid,
        faults=tuple(read.faults),
        problems=tuple(problems),
        warnings=tuple(warnings),
        notes=tuple(read.notes),
        endpoints=endpoints,
    )


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """Add a SpecError to the problems, and go on after the block."""
    try:
        yield
    except SpecError as error:
        problems.append(str(error))


def _build_own_classes(resolved: ResolvedJob) -> None:
    """Build the user's own balancer and transports, as a run would. Raises SpecError if one cannot be built."""
    dispatch = resolved.spec.dispatch
    if isinstance(dispatch.balancer, ImportSpec):
        build_balancer(dispatch.balancer, Random(0))  # noqa: S311  it decides about load, not about secrets
    for model in resolved.models:
        for endpoint in model.endpoints:
            if isinstance(endpoint.transport, ImportSpec):
                timeout = dispatch.timeout_seconds
                asyncio.run(build_transport(endpoint, timeout_seconds=timeout, keys=key, wall=wall_clock).aclose())


def _check_rows(job: JobSpec, read: _RowsRead) -> None:
    """Read every row, and look at the rows' own choices of model and at their ids. Raises SpecError."""
    # Scores take most of the time, and whether a row can be sent does not depend on them.
    scorer = Scorer(job.router, job.models, row_models=job.input.row_models, plan_scores=False)
    notes: list[tuple[Note, ...]] = []
    shared: list[SharedIds | None] = []
    with tempfile.TemporaryDirectory(prefix="batchrouter-") as spool:
        shards = find_input(job, Path(spool))
        places: dict[int, Any] = {}
        verdicts = RowVerdicts(job.input, shards, places.__getitem__)
        names = tuple(model.name for model in job.models)
        for shard in shards:
            table = read_shard(shard, job.input, lambda texts: [0] * len(texts))
            scored = scorer.score(table, shard.name)
            places[shard.index] = scored.select(PLACE_COLUMNS)
            verdict = verdicts.look(shard.index, planned_part(scored, names))
            duplicate_ids = verdicts.messages(shard.index, verdict.repeats_id_of)
            messages = scored[ERROR_MESSAGE]
            read.rows += shard.rows
            read.invalid += len(messages) - messages.null_count + len(duplicate_ids)
            read.faults += first_faults(messages.to_pylist(), duplicate_ids, FAULTS_SHOWN - len(read.faults))
            notes.append(notes_from_metadata(scored.schema.metadata))
            shared.append(verdict.shared)
    read.notes += map(str, summed_notes(notes, shared))


def _check_endpoints(
    models: Sequence[ModelSpec], problems: list[str], warnings: list[str]
) -> tuple[EndpointCheck, ...]:
    asked = [(model, endpoint) for model in models for endpoint in model.endpoints]
    answers = models_listed([endpoint for _, endpoint in asked])
    checks = tuple(
        EndpointCheck(model=model.name, url=endpoint.name or endpoint.place(model.name), usable=usable, said=answer)
        for (model, endpoint), (usable, answer) in zip(asked, answers, strict=True)
    )
    for model, endpoint in asked:
        if endpoint.lacks_api_version:
            warnings.append(
                f"model {model.name}: Azure's deployments want an api_version: give one to {endpoint.place(model.name)}"
            )
    for model in models:
        mine = [check.usable for check in checks if check.model == model.name]
        if not any(mine):
            what = "its endpoint is not usable" if len(mine) == 1 else f"none of its {len(mine)} endpoints is usable"
            problems.append(f"model {model.name}: {what}")
        elif not all(mine):
            unusable = len(mine) - sum(mine)
            warnings.append(f"model {model.name}: {unusable} of its {len(mine)} endpoints are not usable")
    return checks
