"""The commands of batchrouter as Python functions, and the command line.

    from jobs import run, estimate, train, evaluate
    report = run("job.yaml")

Each function takes the path of a file, or the spec itself, and raises errors of `batch.errors`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schemas.calibration import Calibration
    from schemas.evaluation_report import Evaluation
    from schemas.evaluation_spec import EvalSpec
    from schemas.job import JobSpec
    from schemas.reports import Estimate, Report
    from schemas.training import TrainingReport, TrainSpec

__version__ = "0.1.0"


def run(
    job: "str | Path | JobSpec",
    *,
    settings: Sequence[str] = (),
    fresh: bool = False,
    retry_failed: bool = False,
    finish: bool = False,
) -> "Report":
    """Run a job to its report; a run that stopped is resumed.

    Args:
        job: path of a job file, or the job itself.
        settings: `key.key=value`, applied to the file.
        fresh: start over in a new run directory, and keep the old one.
        retry_failed: send failed rows again.
        finish: send nothing, and write results and report of what a stopped run has answered so far.

    Raises:
        SpecError: the job or its input is wrong; nothing was sent.
        EmbedderError: the router's embedding endpoint gave no vectors; the same call resumes the run.
        StorageError: something could not be stored; the same call resumes the run.
        StoppedError: it was interrupted, or endpoints stayed unreachable; the same call resumes the run.
    """
    from jobs.commands.run import run_job

    return run_job(_loaded(job, settings), fresh=fresh, retry_failed=retry_failed, finish=finish)


def estimate(job: "str | Path | JobSpec", *, settings: Sequence[str] = (), sample: int | None = None) -> "Estimate":
    """Score and plan a job for real, send nothing, and estimate the cost and time of a run.

    Args:
        job: path of a job file, or the job itself.
        settings: `key.key=value`, applied to the file.
        sample: read only about so many rows, the first ones of every shard.

    Raises:
        SpecError: the job or its input is wrong.
    """
    from jobs.commands.estimate import estimate_job

    return estimate_job(_loaded(job, settings), sample=sample)


def calibrate(
    job: "str | Path | JobSpec", strong: Sequence[float], *, settings: Sequence[str] = (), sample: int | None = None
) -> "Calibration":
    """Score a job's input, send nothing, and find the cutoffs that send given shares of it to the strongest model.

    Args:
        job: path of a job file, or the job itself.
        strong: shares from 0 to 1.
        settings: `key.key=value`, applied to the file.
        sample: read only about so many rows, the first ones of every shard.

    Raises:
        SpecError: the job or its input is wrong, or has no row that a cutoff would decide.
    """
    from jobs.commands.calibrate import calibrate_job

    return calibrate_job(_loaded(job, settings), strong, sample=sample)


def train(spec: "str | Path | TrainSpec", *, settings: Sequence[str] = (), overwrite: bool = False) -> "TrainingReport":
    """Train a router on labelled answers, measure it on prompts not seen in training, and write its checkpoint.

    Args:
        spec: path of a training file, or the training itself.
        settings: `key.key=value`, applied to the file.
        overwrite: replace an existing checkpoint.

    Raises:
        SpecError: the file or its data is wrong; nothing was written.
        EmbedderError: the embedding endpoint gave no vectors; the same call uses those that came.
        StoppedError: a judge's run stopped before its end; the same call resumes it.
        StorageError: the checkpoint cannot be written.
    """
    from jobs.commands.train import train_router
    from jobs.files.training import load_training
    from schemas.training import TrainSpec

    loaded = spec if isinstance(spec, TrainSpec) else load_training(Path(spec), settings)
    return train_router(loaded, overwrite=overwrite)


def evaluate(spec: "str | Path | EvalSpec", *, settings: Sequence[str] = ()) -> "Evaluation":
    """Measure routers on judged answers, and write figures and plots.

    Args:
        spec: path of an evaluation file, or the evaluation itself.
        settings: `key.key=value`, applied to the file.

    Raises:
        SpecError: the file or its data is wrong, or none of its routers can be built.
        EmbedderError: a router's embedder cannot be reached; the same call resumes the evaluation.
        StorageError: something cannot be written.
    """
    from jobs.commands.evaluate import evaluate_routers
    from jobs.files.evaluation import load_evaluation
    from schemas.evaluation_spec import EvalSpec

    return evaluate_routers(spec if isinstance(spec, EvalSpec) else load_evaluation(Path(spec), settings))


def _loaded(job: "str | Path | JobSpec", settings: Sequence[str]) -> "JobSpec":
    from jobs.files.yaml_specs import load_job
    from schemas.job import JobSpec

    return job if isinstance(job, JobSpec) else load_job(Path(job), settings)
