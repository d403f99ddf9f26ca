"""`run`: runs a job to its report, or resumes it."""

import platform
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from batch.costs.prices import prices_for
from batch.dispatch.limits.open_files import raise_limit
from batch.errors import DamagedError, InputError, SpecError
from batch.reading.shards import check_streams
from batch.reading.sources import Source, find_sources, fingerprint_sources
from batch.routers.embedders.spending_log import read_spending, with_embeddings
from batch.routers.registry import router_fingerprint
from batch.running.engine import Engine, InlineEngine
from batch.running.pipeline import Pipeline
from batch.running.resolved_job import ResolvedJob
from batch.running.run_end import RunEnd
from batch.running.run_shards import note_on_changed_input
from batch.running.sending_nothing import FinishingEngine
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import fingerprint
from batch.runs.layout import Layout, run_path
from batch.runs.manifest import is_run_directory
from batch.runs.output.local import check_output_writable, write_output
from jobs.commands.output_overlap import check_output_not_input
from jobs.commands.reachability import unreachable
from jobs.commands.status import stored_report
from jobs.environment import (
    ENVIRONMENT,
    block_sighup,
    end_process,
    interrupts,
    monotonic,
    now,
    pause,
    ray_folders,
    set_library_defaults,
    settle_ray_token,
    settled_environment,
)
from jobs.resolve import missing_keys, resolve_job
from jobs.stopped import StoppedError
from jobs.terminal.html.report import render_html
from jobs.terminal.progress import ProgressDisplay
from schemas.job import JobSpec
from schemas.reports import Report, Timing

_TOLD_VERSIONS = ("batchrouter", "ray", "pyarrow", "pyreqwest", "litellm", "torch", "transformers")


def run_job(
    job: JobSpec,
    *,
    fresh: bool = False,
    retry_failed: bool = False,
    finish: bool = False,
    progress: ProgressDisplay | None = None,
) -> Report:
    """Run `job` to its report, which is also stored in the run directory; a run that stopped is resumed.

    Args:
        fresh: start over in a new run directory, and keep the old one.
        retry_failed: send failed rows again.
        finish: send nothing, and write results and report of what earlier sittings answered. Rows without an outcome
            are `unsent` in them; the next run without `finish` sends these rows.
        progress: shows how far the run is.

    Raises:
        SpecError: the job or its input is wrong; nothing was sent.
        StorageError: something could not be stored; the same call resumes the run.
        StoppedError: it was interrupted, or endpoints stayed unreachable; the same call resumes the run.
    """
    set_library_defaults()
    path = run_path(job.output)
    resolved = resolve_job(job, Layout(path).cache)
    job = resolved.spec
    if finish:
        _check_begun(path, other_options=fresh or retry_failed)
        job = job.model_copy(update={"engine": "inline"})
    else:
        _preflight(resolved)
    reported = Layout(path).report.exists() and not fresh
    notes = () if reported or finish else _reached(resolved)
    # Listed only once, so that exactly the files with this fingerprint are cut into shards.
    sources = _sources(job, finish=finish)
    with _run_directory(path, job, sources, fresh=fresh, keep_input=finish) as directory:
        if directory.manifest.shards is not None:
            check_streams(sources, directory.layout.spool)
        if reported and _is_finished(directory, retry_failed=retry_failed):
            # Only the output is written again, which needs neither a cluster nor reachable endpoints.
            job = job.model_copy(update={"engine": "inline"})
        else:
            notes = _reached(resolved) if reported and not finish else notes
            directory.discard_report()
        pipeline, end, written = _work_and_write(
            replace(resolved, spec=job), sources, directory, progress, retry_failed=retry_failed, finish=finish
        )
        if not end.finished:
            raise _stopped(end, fresh=fresh)
        if directory.input_changed:
            notes = (*notes, note_on_changed_input(directory, pipeline.shards))
        report = _report(job, pipeline, directory, written, (*notes, *end.notes, *map(str, pipeline.input_notes())))
        directory.write_report(report.model_dump_json(indent=2).encode(), render_html(report).encode())
    return report


def _run_directory(
    path: Path, job: JobSpec, sources: Sequence[Source], *, fresh: bool, keep_input: bool
) -> AbstractContextManager[RunDirectory]:
    return RunDirectory.open(
        path,
        fingerprint(job, fingerprint_sources(sources), router_fingerprint(job.router)),
        job=job.name,
        created=now().isoformat(timespec="seconds"),
        version=version("batchrouter"),
        fresh=fresh,
        keep_input=keep_input,
    )


def _work_and_write(
    job: ResolvedJob,
    sources: Sequence[Source],
    directory: RunDirectory,
    progress: ProgressDisplay | None,
    *,
    retry_failed: bool,
    finish: bool,
) -> tuple[Pipeline, RunEnd, str]:
    """Work until the run is finished or has to stop, and write the output if it is finished.

    The pipeline makes missing files of a run directory again. So if a file is damaged, it is removed, and the pipeline
    starts once more.

    Returns:
        The pipeline, how it ended, and the path of the results, which is empty if they were not written.
    """
    while True:
        try:
            # A resumed run may have nothing left to read.
            with _engine(job.spec, progress, directory, finish=finish) as engine:
                pipeline = Pipeline(
                    job,
                    sources,
                    directory,
                    engine,
                    monotonic,
                    retry_failed=retry_failed,
                    observe=progress.update if progress is not None else lambda snapshot: None,
                )
                with interrupts(pipeline.drain):
                    end = pipeline.run()
            if not end.finished:
                return pipeline, end, ""
            shards = [shard.index for shard in pipeline.shards]
            return pipeline, end, write_output(directory.layout, shards, job.spec.output)
        except DamagedError as damage:
            directory.mend(damage)


def _is_finished(directory: RunDirectory, *, retry_failed: bool) -> bool:
    """Whether earlier sittings left nothing to send."""
    if directory.plan_changed or not directory.layout.report.exists():
        return False
    try:
        rows = stored_report(directory.layout.path).rows
    except SpecError:
        # Another version wrote the report, or it is damaged; it is made again.
        return False
    return not rows.unsent and not (retry_failed and rows.failed)


def _sources(job: JobSpec, *, finish: bool) -> list[Source]:
    """The input files; empty if they are gone and only answers that are stored are to be written."""
    try:
        return find_sources(job.input)
    except InputError:
        if not finish:
            raise
        return []


def _check_begun(path: Path, *, other_options: bool) -> None:
    if other_options:
        raise SpecError("--finish writes what is there; leave out --fresh and --retry-failed")
    if not is_run_directory(path):
        raise SpecError(f"--finish writes the results of a run that was begun, and there is none at {path}")


def _engine(
    job: JobSpec, progress: ProgressDisplay | None, directory: RunDirectory, *, finish: bool
) -> AbstractContextManager[Engine]:
    if finish:
        return closing(FinishingEngine(ENVIRONMENT, pause))
    return engine_of(job, progress, warm=directory.manifest.shards is None)


@contextmanager
def engine_of(job: JobSpec, progress: ProgressDisplay | None = None, *, warm: bool = True) -> Iterator[Engine]:
    """The engine on which the job's work runs, closed when the block ends.

    With `warm`, Ray starts workers at once, and not only when there is work for them.
    """
    # Ray's processes inherit the limit, so it is raised before they start.
    raise_limit()
    engine: Engine
    if job.engine == "inline":
        engine = InlineEngine(ENVIRONMENT, pause)
    else:
        if progress is not None:
            progress.stage("joining the Ray cluster" if job.ray.address is not None else "starting Ray")
        if job.ray.address is None:
            settle_ray_token()
        from batch.running.ray.engine import RayEngine

        ray_engine = RayEngine(
            address=job.ray.address,
            actors=job.router.actors,
            environment=ENVIRONMENT,
            pause=pause,
            end_process=end_process,
            folders=ray_folders(),
            variables=settled_environment(),
            warm=warm,
        )
        # A closing terminal must not end Ray's processes, which are needed while the run drains.
        with block_sighup():
            ray_engine.start()
        engine = ray_engine
    try:
        yield engine
    finally:
        engine.close()


def _preflight(job: ResolvedJob) -> None:
    """Check keys, output and prices before anything is spent. Raises SpecError."""
    missing = missing_keys(job)
    if missing:
        raise SpecError("\n".join(missing))
    check_output_writable(job.spec.output)
    check_output_not_input(job.spec)
    if job.spec.dispatch.budget_usd is not None:
        unpriced = [name for name, price in prices_for(job.called).items() if price is None]
        if unpriced:
            raise SpecError("\n".join(f"dispatch.budget_usd needs a price for {name}" for name in unpriced))


def _reached(job: ResolvedJob) -> tuple[str, ...]:
    """Connect to every endpoint; one line for each that cannot be reached.

    Raises:
        SpecError: none of a model's endpoints can be reached.
    """
    silent = unreachable(job.called)
    dead = [
        line
        for model in job.called
        for line in silent.get(model.name, ())
        if len(silent[model.name]) == len(model.endpoints)
    ]
    if dead:
        raise SpecError("\n".join(dead))
    return tuple(line for lines in silent.values() for line in lines)


def _stopped(end: RunEnd, *, fresh: bool) -> StoppedError:
    if end.halted is not None:
        return StoppedError(f"{end.halted}; what was answered is kept", interrupted=False)
    same = "the same command without --fresh" if fresh else "the same command"
    reason = "interrupted" if end.interrupted else "; ".join(end.notes) or "the run ended early"
    return StoppedError(
        f"{reason}; rerun {same} to resume, or add --finish to write the results of what was answered",
        interrupted=end.interrupted,
    )


def _report(job: JobSpec, pipeline: Pipeline, directory: RunDirectory, written: str, notes: tuple[str, ...]) -> Report:
    ledger, records = pipeline.records()
    plan = directory.read_plan()
    assert plan is not None, "a finished run has a plan"
    sittings = directory.manifest.sittings
    wall = sum(sitting.wall for sitting in sittings)
    rows = sum(shard.rows for shard in pipeline.shards)
    report = ledger.report(
        name=job.name,
        plan=plan,
        timing=Timing(
            wall_seconds=wall,
            rows_per_second=rows / wall if wall else 0.0,
            scoring=sum(sitting.scoring for sitting in sittings),
            dispatch=sum(sitting.dispatch for sitting in sittings),
            finished_at=now(),
        ),
        versions=_versions(),
        fingerprint=directory.manifest.fingerprint,
        output=written,
        ambiguous=[row for record in records for row in record.ambiguous],
        notes=[*notes, *directory.manifest.damage, *(note for record in records for note in record.notes)],
    )
    return with_embeddings(report, read_spending(directory.layout.embeddings))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _TOLD_VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
