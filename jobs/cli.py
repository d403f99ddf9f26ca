"""The command line. Each command imports what it needs itself, so that `--help` and errors of a spec come at once."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from jobs.exit_status import RESUMES, Exit, errors_as_lines, status_of
from jobs.options import JobFile, Json, Limit, LogFile, RunDir, Sample, Settings, Verbose
from jobs.terminal.show import print_line, show, show_report

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from schemas.job import JobSpec
    from schemas.reports import Report

app = typer.Typer(
    name="batchrouter",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from jobs import __version__

        print_line(f"batchrouter {__version__}")
        raise typer.Exit


@app.callback()
def batchrouter(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Route a file of prompts over many models, within every limit and budget, and never pay twice."""


@app.command(short_help="Run a job, or resume it.")
def run(
    job: JobFile,
    settings: Settings = None,
    limit: Limit = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over, and keep the old run directory.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Send failed rows again.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Send nothing; write the results of the rows answered so far.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Send to local stand-ins with the same limits: a dress rehearsal.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Run a job, or resume it if an earlier run stopped. Rows that were answered are not sent again."""
    with errors_as_lines(RESUMES), _logs(verbose, log_file):
        spec = _load(job, settings, limit)
        from jobs.commands.run import run_job
        from jobs.terminal.progress import ProgressDisplay

        with ProgressDisplay() as progress:
            if rehearse:
                from jobs.rehearsal.stand_ins import rehearsed

                with rehearsed(spec) as spec:
                    report = run_job(spec, fresh=fresh, retry_failed=retry_failed, finish=finish, progress=progress)
            else:
                report = run_job(spec, fresh=fresh, retry_failed=retry_failed, finish=finish, progress=progress)
        from batch.runs.layout import run_path

        show_report(report, run_path(spec.output), json=json)
        raise typer.Exit(_status_of(report))


@app.command(short_help="Print what a run would cost and how long it would take. Sends nothing.")
def estimate(
    job: JobFile,
    settings: Settings = None,
    limit: Limit = None,
    sample: Sample = None,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Score and plan a job for real, send nothing, and print what a run would cost and how long it would take."""
    with errors_as_lines(), _logs(verbose, log_file):
        spec = _load(job, settings, limit)
        from jobs.commands.estimate import estimate_job
        from jobs.terminal.progress import ProgressDisplay
        from jobs.terminal.report import render_estimate

        with ProgressDisplay() as progress:
            found = estimate_job(spec, sample=sample, progress=progress)
        show(found, render_estimate, json=json)
        raise typer.Exit(Exit.SOME_NOT_OK if found.rows.invalid else Exit.OK)


@app.command(short_help="Print the cutoff that sends a share of the input to the strongest model. Sends nothing.")
def calibrate(
    job: JobFile,
    strong: Annotated[
        list[float],
        typer.Option("--strong", metavar="SHARE", min=0, max=1, help="The share, 0 to 1; may be repeated."),
    ],
    settings: Settings = None,
    limit: Limit = None,
    sample: Sample = None,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Score a job's input, send nothing, and print the cutoff that sends this share of it to the strongest model."""
    with errors_as_lines(), _logs(verbose, log_file):
        spec = _load(job, settings, limit)
        from jobs.commands.calibrate import calibrate_job
        from jobs.terminal.calibration_table import render_calibration
        from jobs.terminal.progress import ProgressDisplay

        with ProgressDisplay() as progress:
            found = calibrate_job(spec, strong, sample=sample, progress=progress)
        show(found, render_calibration, json=json)


@app.command(short_help="Check every row, key and endpoint. Sends no prompt.")
def check(
    job: JobFile,
    settings: Settings = None,
    limit: Limit = None,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Check the job file, every row, the keys and every endpoint before a run spends money."""
    with errors_as_lines(), _logs(verbose, log_file):
        spec = _load(job, settings, limit)
        from jobs.commands.check import check_job
        from jobs.terminal.check_and_status import render_check
        from jobs.terminal.progress import ProgressDisplay

        with ProgressDisplay() as progress:
            progress.stage("looking at rows and endpoints")
            found = check_job(spec)
        show(found, lambda check, console: render_check(check, spec.name, console), json=json)
        raise typer.Exit(Exit.WRONG if found.problems else Exit.SOME_NOT_OK if found.invalid else Exit.OK)


@app.command(short_help="Print a run's report again.")
def report(run_dir: RunDir, json: Json = False, verbose: Verbose = False, log_file: LogFile = None) -> None:
    """Print a run's report again."""
    with errors_as_lines(), _logs(verbose, log_file):
        from jobs.commands.status import stored_report

        show_report(stored_report(run_dir), run_dir, json=json)


@app.command(short_help="Print how far a run has come.")
def status(run_dir: RunDir, json: Json = False, verbose: Verbose = False, log_file: LogFile = None) -> None:
    """Print how far a run has come; it may be running."""
    with errors_as_lines(), _logs(verbose, log_file):
        from jobs.commands.status import read_status
        from jobs.terminal.check_and_status import render_status

        show(read_status(run_dir), lambda found, console: render_status(found, run_dir, console), json=json)


@app.command(short_help="Serve local endpoints for dress rehearsals.")
def rehearse(
    endpoints: Annotated[
        Path, typer.Argument(metavar="ENDPOINTS.yaml", help="The endpoints to serve.", show_default=False)
    ],
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Serve local OpenAI-compatible endpoints with limits, latency and faults, until Ctrl-C."""
    with errors_as_lines(), _logs(verbose, log_file):
        from jobs.rehearsal.server import run_rehearsal

        run_rehearsal(endpoints)


@app.command(short_help="Train a router on labelled answers.")
def train(
    train_file: Annotated[Path, typer.Argument(metavar="TRAIN.yaml", help="The training file.", show_default=False)],
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing checkpoint.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Train a router on labelled answers, measure it on prompts not seen in training, and write its checkpoint."""
    with errors_as_lines("to start over, keeping what judges and embedders have answered"), _logs(verbose, log_file):
        from jobs.files.training import load_training

        spec = load_training(train_file, settings or ())
        from jobs.commands.train import train_router
        from jobs.terminal.progress import ProgressDisplay
        from jobs.terminal.training_table import render_training

        with ProgressDisplay() as progress:
            found = train_router(spec, overwrite=overwrite, progress=progress)
        show(found, render_training, json=json)


@app.command(short_help="Measure routers on judged answers.")
def evaluate(
    eval_file: Annotated[Path, typer.Argument(metavar="EVAL.yaml", help="The evaluation file.", show_default=False)],
    settings: Settings = None,
    json: Json = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Measure routers on judged answers, beside baselines; prints tables, and writes JSON and a plot per benchmark."""
    with errors_as_lines(RESUMES), _logs(verbose, log_file):
        from jobs.files.evaluation import load_evaluation

        spec = load_evaluation(eval_file, settings or ())
        from jobs.commands.evaluate import evaluate_routers
        from jobs.terminal.evaluation_table import render_evaluation
        from jobs.terminal.progress import ProgressDisplay

        with ProgressDisplay() as progress:
            found = evaluate_routers(spec, progress=progress)
        show(found, render_evaluation, json=json)
        raise typer.Exit(Exit.SOME_NOT_OK if found.not_evaluated else Exit.OK)


@app.command(short_help="Print the job file's JSON Schema.")
def schema(verbose: Verbose = False, log_file: LogFile = None) -> None:
    """Print the job file's JSON Schema, for editors."""
    with errors_as_lines(), _logs(verbose, log_file):
        from json import dumps

        from schemas.job import JobSpec

        print_line(dumps(JobSpec.model_json_schema(), indent=2))


def main() -> NoReturn:
    """The console script: `run_command`, then the end of the process.

    The HTTP client has threads of its own, in Rust, which Python does not join. A thread that wants the interpreter's
    lock during Python's shutdown aborts the process: `check` exited with 134 in one of 15 runs on a loaded machine. If
    the client was loaded, the process therefore ends without Python's shutdown. Engines and files are closed by then.
    """
    status = run_command()
    if "pyreqwest" not in sys.modules:
        sys.exit(status)
    for stream in (sys.stdout, sys.stderr):
        # A stream that cannot be flushed was reported already, or is the one that would report it.
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def run_command() -> int:
    """Run the command that the command line names; its exit status."""
    return status_of(app)


def _logs(verbose: bool, log_file: Path | None) -> "AbstractContextManager[None]":
    from jobs import __version__
    from jobs.logs import log_records

    return log_records(__version__, verbose=verbose, log_file=log_file)


def _load(job: Path, settings: list[str] | None, limit: int | None) -> "JobSpec":
    from jobs.files.yaml_specs import load_job

    return load_job(job, [*(settings or ()), *([f"input.limit={limit}"] if limit is not None else [])])


def _status_of(found: "Report") -> Exit:
    return Exit.OK if found.rows.ok == found.rows.total else Exit.SOME_NOT_OK


if __name__ == "__main__":
    main()
