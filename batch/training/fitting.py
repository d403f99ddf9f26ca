"""From a kind of router and its data to weights on disk, and to the job's block that uses them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, assert_never

from pydantic import TypeAdapter

from batch.routers.base import Embedder
from batch.routers.checkpoints.format import CheckpointKind
from batch.routers.checkpoints.hub import find_folder
from batch.training.data import Trained
from batch.training.labels.alignment import Data, as_judged
from schemas.embedders import EmbedderSpec
from schemas.routers import RouterSpec
from schemas.training import FineTuningSpec, TrainKind

_ROUTER: TypeAdapter[RouterSpec] = TypeAdapter(RouterSpec)


def fit(
    kind: CheckpointKind,
    data: Sequence[Data],
    models: tuple[str, ...],
    embedder: Embedder,
    seed: int,
    validation: float,
) -> Trained:
    """Fit a router of this kind; deterministic but for the embedder.

    Args:
        models: weakest first.
        validation: share of `data` by which settings are chosen.

    Raises:
        SpecError: in one line, where the data does not suffice.
    """
    match kind:
        case "mf":
            from batch.training.mf import fit_mf

            return fit_mf(data, embedder, seed, validation)
        case "correctness":
            from batch.training.correctness import fit_correctness as fitted
        case "static":
            from batch.training.static import fit_static as fitted
        case "knn":
            from batch.training.knn import fit_knn as fitted
        case "cluster":
            from batch.training.cluster import fit_cluster as fitted
        case _:
            assert_never(kind)
    return fitted([as_judged(one, models) for one in data], embedder, seed, validation)


def fine_tune(
    kind: Literal["bert", "causal_llm"],
    data: Sequence[Data],
    models: tuple[str, ...],
    spec: FineTuningSpec,
    out: Path,
    *,
    seed: int,
    validation: float,
    progress: Callable[[str], None] | None = None,
) -> Mapping[str, Any]:
    """Fine-tune a whole model into `out`, in RouteLLM's layout; figures for a model card.

    Args:
        models: weakest first.
        validation: share of `data` by which the epoch that is kept is chosen.
        progress: told of each epoch.

    Raises:
        SpecError: in one line, where the data does not suffice, the base model is not there, or a library is missing.
    """
    base = find_folder(spec.base, "fine_tuning.base")
    same: dict[str, Any] = {"models": models, "seed": seed, "validation": validation, "epochs": spec.epochs}
    same |= {"batch_tokens": spec.batch_tokens, "progress": progress}
    if spec.learning_rate is not None:
        same["learning_rate"] = spec.learning_rate
    if kind == "bert":
        from batch.training.bert import fine_tune_bert

        return fine_tune_bert(data, base, out, layers=spec.layers, **same)
    from batch.training.causal_llm import fine_tune_causal_llm

    return fine_tune_causal_llm(data, base, out, **same)


def router_of(kind: TrainKind, folder: Path, models: tuple[str, ...], embedder: EmbedderSpec | None) -> RouterSpec:
    """The `router` of a job that uses the checkpoint in `folder`.

    Args:
        models: weakest first.
        embedder: what it was trained on, for the kinds that go by vectors.
    """
    block: dict[str, object] = {"kind": kind, "checkpoint": str(folder)}
    if embedder is not None:
        block["embedder"] = embedder
    if kind == "mf":
        block |= {"strong": models[-1], "weak": models[0]}
    return _ROUTER.validate_python(block)
