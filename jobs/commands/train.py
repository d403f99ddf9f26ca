"""`train`: trains a router on labelled answers and writes its checkpoint with a model card."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Floats
from batch.environment import Environment, SpendingRecord
from batch.errors import SpecError
from batch.routers.checkpoints.format import CARD, CONFIG, TRAINING, save_checkpoint
from batch.routers.checkpoints.hub import find_folder
from batch.routers.registry import build_router
from batch.routers.scores import ranking_scores
from batch.storage.atomic import storage_error
from batch.storage.atomic_folder import check_folder_writable, clear_killed, replacing_folder
from batch.training.card import model_card
from batch.training.data import Judged
from batch.training.encoders import PACKAGED, Encoder, endpoint_encoder, import_encoder, local_encoder
from batch.training.kind import FineTuner, FineTuningRequest, FitRequest, VectorTrainer
from batch.training.labels.alignment import Data, aligned, as_judged, choose_held_out, labels_of, mean_quality, part_of
from batch.training.labels.files import Labels, read_labels
from batch.training.labels.judging import Judge
from batch.training.labels.results import read_results
from batch.training.measuring import cautions, cutoffs, measure, tuning_cautions
from batch.training.registry import TRAINERS, pair_keys, router_of
from jobs.commands.judge import build_judge
from jobs.commands.spending import embeddings_spent, judging_spent
from jobs.environment import key, set_library_defaults, wall_clock
from jobs.resolve import resolve_embedder, resolve_model
from jobs.terminal.progress import ProgressDisplay
from schemas.embedders import ImportEmbedderSpec
from schemas.routers import RouterSpec
from schemas.training import (
    DataReport,
    FileRead,
    HeldOut,
    ModelJudgeSpec,
    ResultsDataSpec,
    TrainingReport,
    TrainLocalEmbedderSpec,
    TrainSpec,
)

Save = Callable[[Mapping[str, Any], str], object]
"""Writes the checkpoint with these entries about its training and with the text of its model card."""


@dataclass(frozen=True)
class _Split:
    """The data, split into prompts for training and prompts held out from it."""

    models: tuple[str, ...]
    """The models, weakest first."""
    data: list[Data]
    """All data, one item for each item of the file."""
    trained: list[Data]
    """The data for training, without items of which nothing is left."""
    held: list[Judged]
    """The data that is held out."""


@dataclass(frozen=True)
class _Made:
    """A trained router, on disk except for the report and the card."""

    router: RouterSpec
    chosen: Mapping[str, Any]
    save: Save
    unseen: Callable[[], NDArray[np.float32]] | None = None
    """As `Trained.unseen`."""


def train_router(
    spec: TrainSpec, *, overwrite: bool = False, progress: ProgressDisplay | None = None
) -> TrainingReport:
    """Train a router, measure it on prompts that it has not seen, and write its checkpoint.

    The checkpoint is written as a whole or not at all. The same data, encoder and seed give the same checkpoint. If a
    training ends early, the same call starts over, and uses the answers of judges and embedders that came before.

    Args:
        overwrite: replace an existing checkpoint.
        progress: shows the stage of the training.

    Raises:
        SpecError: the file, its data or what they name is wrong; nothing was written.
        EmbedderError: endpoints gave no vectors; those that came are kept.
        StoppedError: a judge's run stopped before its end; the same call resumes it.
        StorageError: the checkpoint cannot be written.
    """
    set_library_defaults()
    out = Path(spec.output)
    clear_killed(out)
    _check_free(out, overwrite=overwrite)
    check_folder_writable(out.parent)
    encoder = _encoder(spec, beside(out, "cache"))
    _show_stage(progress, "reading labels")
    labels = _labels(spec, beside(out, "judging"), progress)
    split = _split(spec, labels)
    _show_stage(progress, "training")
    with _placed(out) as folder:
        made = _train(spec, split, encoder, folder, progress)
        _show_stage(progress, "measuring")
        report = _measured(spec, labels, split, made)
        shown: dict[str, Any] = {"kind": spec.kind}
        if encoder is not None and _embedder_entry(encoder):
            shown |= {"embedder": _embedder_entry(encoder)}
        shown |= pair_keys(spec.kind, split.models)
        training = report.model_dump(mode="json", exclude={"output", "kind", "models", "spent"})
        made.save(training, model_card(report, shown, matched_by=spec.matched_by))
    spent = (*embeddings_spent(_embeddings_log(beside(out, "cache"))), *judging_spent(beside(out, "judging")))
    return report.model_copy(update={"spent": spent})


def beside(out: Path, what: str) -> Path:
    """Folder that keeps something from one call to the next: `<output>.judging` or `<output>.cache`."""
    return out.with_name(f"{out.name}.{what}")


def _check_free(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir() or not (out / CONFIG).is_file():
        raise SpecError(f"output: {out} exists and is no checkpoint; choose a folder that does not exist yet")
    if not overwrite:
        raise SpecError(f"output: {out} holds a checkpoint; --overwrite replaces it")


def _encoder(spec: TrainSpec, cache: Path) -> Encoder | None:
    """The encoder of prompts, loaded before any data is read; `None` for kinds that are fine-tuned."""
    trainer = TRAINERS[spec.kind]
    if isinstance(trainer, FineTuner):
        return None
    if trainer.own_encoder is not None:
        return trainer.own_encoder()
    embedder = spec.embedder or TrainLocalEmbedderSpec()
    if isinstance(embedder, TrainLocalEmbedderSpec):
        return local_encoder(embedder)
    if isinstance(embedder, ImportEmbedderSpec):
        return import_encoder(embedder)
    filled = resolve_embedder(embedder, "embedder", cache)
    return endpoint_encoder(filled, Environment(key, wall_clock, SpendingRecord(_embeddings_log(cache))))


def _embeddings_log(cache: Path) -> Path:
    """The file that keeps what embedding endpoints cost, in all calls for one output."""
    return cache / "embeddings.jsonl"


def _labels(spec: TrainSpec, folder: Path, progress: ProgressDisplay | None) -> list[Labels]:
    """Read all items of `data`, and give each a name that no other has."""
    judges: dict[int, Judge] = {}
    for place, judge in spec.judges():
        where = f"data.{place}.judge"
        if isinstance(judge, ModelJudgeSpec):
            judge = judge.model_copy(update={"model": resolve_model(judge.model, f"{where}.model")})
        judges[place] = build_judge(judge, where, folder, progress)
    names: set[str] = set()
    found = []
    for place, one in enumerate(spec.data):
        where = f"data.{place}"
        labels = (
            read_results(one, where, judges[place]) if isinstance(one, ResultsDataSpec) else read_labels(one, where)
        )
        name, number = labels.data.name, 2
        while name in names:
            name, number = f"{labels.data.name}-{number}", number + 1
        names.add(name)
        found.append(replace(labels, data=replace(labels.data, name=name)))
    return found


def _split(spec: TrainSpec, labels: Sequence[Labels]) -> _Split:
    models, data = aligned(labels, spec.models)
    kept_out = [choose_held_out(one.prompts, spec.validation, spec.seed) for one in data]
    trained = [part_of(one, ~out) for one, out in zip(data, kept_out, strict=True)]
    held = [as_judged(part_of(one, out), models) for one, out in zip(data, kept_out, strict=True)]
    return _Split(models, data, [one for one in trained if one.prompts], held)


def _train(
    spec: TrainSpec, split: _Split, encoder: Encoder | None, folder: Path, progress: ProgressDisplay | None
) -> _Made:
    trainer = TRAINERS[spec.kind]
    if isinstance(trainer, FineTuner):
        return _fine_tuned(spec, trainer, split, folder, progress)
    return _fitted(spec, trainer, split, encoder, folder)


def _fitted(spec: TrainSpec, trainer: VectorTrainer, split: _Split, encoder: Encoder | None, folder: Path) -> _Made:
    assert encoder is not None, "`_encoder` gives one to each of these kinds"
    trained = trainer.fit(FitRequest(split.trained, split.models, encoder.embedder, spec.seed, spec.validation))

    def save(training: Mapping[str, Any], text: str) -> None:
        save_checkpoint(
            folder,
            trained.tensors,
            kind=trainer.kind,
            models=split.models,
            matched_by=spec.matched_by,
            encoder=encoder.config(),
            options=trained.options,
            training=training,
            card=text,
        )

    save({}, "")
    job = encoder.job if trainer.own_encoder is None else None
    return _Made(router_of(spec.kind, folder, split.models, job), trained.chosen, save, trained.unseen)


def _fine_tuned(
    spec: TrainSpec, tuner: FineTuner, split: _Split, folder: Path, progress: ProgressDisplay | None
) -> _Made:
    assert spec.fine_tuning is not None, "the spec has seen to it"
    request = FineTuningRequest(
        split.trained,
        split.models,
        spec.fine_tuning,
        find_folder(spec.fine_tuning.base, "fine_tuning.base"),
        folder,
        spec.seed,
        spec.validation,
        lambda said: _show_stage(progress, said),
    )
    chosen = tuner.fine_tune(request)

    def save(training: Mapping[str, Any], text: str) -> None:
        (folder / TRAINING).write_text(json.dumps(training, indent=2) + "\n")
        (folder / CARD).write_text(text)

    return _Made(router_of(spec.kind, folder, split.models, None), chosen, save)


def _environment_of(spec: TrainSpec) -> Environment:
    """The environment of the trained router, which uses the endpoints that it was trained with."""
    return Environment(key, wall_clock, SpendingRecord(_embeddings_log(beside(Path(spec.output), "cache"))))


def _measured(spec: TrainSpec, labels: Sequence[Labels], split: _Split, made: _Made) -> TrainingReport:
    router = build_router(made.router, split.models, spec.seed, environment=_environment_of(spec))

    def gap(prompts: Sequence[str]) -> Floats:
        return ranking_scores(router.score(prompts).astype(np.float64), router.models, split.models)

    def gap_of_trained() -> Floats:
        if made.unseen is None:
            return gap(seen)
        return ranking_scores(made.unseen().astype(np.float64), split.models, split.models)

    scores = [gap(one.prompts) for one in split.held]
    figures = {one.name: measure(one, score, spec.seed) for one, score in zip(split.held, scores, strict=True)}
    seen = list(dict.fromkeys(prompt for one in split.trained for prompt in one.prompts))
    unseen = {prompt for one in split.held for prompt in one.prompts}
    whole = [as_judged(one, split.models) for one in split.data]
    data = [_data_report(one, aligned_to, split.models) for one, aligned_to in zip(labels, split.data, strict=True)]
    labelled = {model: sum(one.judged[model] for one in data) for model in split.models}
    together = np.concatenate(scores)
    return TrainingReport(
        kind=spec.kind,
        name=spec.name or f"{spec.kind} router, {split.models[-1]} and {split.models[0]}",
        models=split.models,
        quality={model: round(mean, 4) for model, mean in mean_quality(whole, split.models).items()},
        seed=spec.seed,
        data=tuple(data),
        prompts=len(seen),
        held_out_prompts=len(unseen),
        chosen=dict(made.chosen),
        held_out={name: found for name, found in figures.items() if isinstance(found, HeldOut)},
        cutoffs=cutoffs(together, gap_of_trained),
        warnings=(
            *(note for one in labels for note in one.notes),
            *cautions(figures, len(seen) + len(unseen), labelled),
            *tuning_cautions(made.chosen),
        ),
        output=spec.output,
    )


def _data_report(labels: Labels, used: Data, models: tuple[str, ...]) -> DataReport:
    rows = len(used.prompts)
    return DataReport(
        name=used.name,
        kind=labels.kind,
        files=tuple(FileRead(name=file.name, sha256=file.sha256, size=file.size) for file in labels.files),
        rows=rows,
        skipped=labels.skipped + len(labels.data.prompts) - rows,
        duplicates=rows - len(set(used.prompts)),
        judged=labels_of(used, models),
    )


def _embedder_entry(encoder: Encoder) -> dict[str, Any]:
    """The embedder for the model card; empty for the packaged one."""
    if isinstance(encoder.job, ImportEmbedderSpec):
        return encoder.job.model_dump(exclude_defaults=True)
    config = encoder.config()
    return {} if config.name == PACKAGED else {"kind": config.kind, "model": config.name}


@contextmanager
def _placed(out: Path) -> Iterator[Path]:
    """Yield a folder that becomes `out` when the block ends, and is deleted if it raises. Raises StorageError."""
    try:
        with replacing_folder(out) as folder:
            yield folder
    except OSError as error:
        raise storage_error(out, error, then="to start over") from error


def _show_stage(progress: ProgressDisplay | None, what: str) -> None:
    if progress is not None:
        progress.stage(what)
