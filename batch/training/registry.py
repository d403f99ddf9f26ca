"""Every kind of router that can be trained, and the job's block that uses what training wrote."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from batch.training import bert, causal_llm, cluster, correctness, knn, mf, static
from batch.training.kind import Trainer, VectorTrainer
from schemas.embedders import EmbedderSpec
from schemas.routers import RouterSpec
from schemas.training import TrainKind

_TRAINERS: tuple[Trainer, ...] = (
    mf.TRAINER,
    correctness.TRAINER,
    static.TRAINER,
    knn.TRAINER,
    cluster.TRAINER,
    bert.TRAINER,
    causal_llm.TRAINER,
)
TRAINERS: Mapping[TrainKind, Trainer] = {trainer.kind: trainer for trainer in _TRAINERS}
"""The trainer of each kind of router that can be trained."""

_ROUTER: TypeAdapter[RouterSpec] = TypeAdapter(RouterSpec)


def pair_keys(kind: TrainKind, models: tuple[str, ...]) -> Mapping[str, str]:
    """`strong` and `weak` of the `router` block, for the kinds that name a pair; `models` are weakest first."""
    trainer = TRAINERS[kind]
    names_pair = isinstance(trainer, VectorTrainer) and trainer.names_pair
    return {"strong": models[-1], "weak": models[0]} if names_pair else {}


def router_of(kind: TrainKind, folder: Path, models: tuple[str, ...], embedder: EmbedderSpec | None) -> RouterSpec:
    """The `router` block of a job that uses the checkpoint in `folder`.

    Args:
        models: weakest first.
        embedder: what the router was trained on, for the kinds whose block names it.
    """
    block: dict[str, object] = {"kind": kind, "checkpoint": str(folder), **pair_keys(kind, models)}
    if embedder is not None:
        block["embedder"] = embedder
    return _ROUTER.validate_python(block)
