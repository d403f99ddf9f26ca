"""Texts that spell vectors, and checkpoints of judged answers near such vectors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig, Tensors, save_checkpoint
from batch.training.data import Judged
from tests.routers.conftest import PAIR

NeighbourKind = Literal["knn", "cluster"]


class NumbersInText:
    """Embeds "0.5 1.5" as (0.5, 1.5)."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[float(word) for word in text.split()] for text in texts], dtype=np.float32)


def texts(vectors: NDArray[Any]) -> list[str]:
    """Texts that NumbersInText embeds as these vectors."""
    return [" ".join(repr(float(number)) for number in vector) for vector in vectors]


def hills(count: int, seed: int, dimension: int = 6, models: tuple[str, ...] = PAIR) -> Judged:
    """Prompts in four groups: the weakest model is good at two of them, a stronger one at more, the best at all."""
    chance = np.random.default_rng(seed)
    group = chance.integers(0, 4, count)
    vectors = chance.normal(size=(count, dimension)) * 0.4
    vectors[np.arange(count), group] += 3.0
    reach = np.linspace(1, 3, len(models))
    likely = np.where(group[:, None] <= reach, 0.9, 0.2)
    return Judged("hills", texts(vectors), models, (chance.random((count, len(models))) < likely).astype(float))


def checkpoint(
    kind: NeighbourKind,
    tensors: Tensors,
    options: Mapping[str, Any],
    models: tuple[str, ...] = PAIR,
    matched_by: Literal["position", "name"] = "name",
) -> Checkpoint:
    """A checkpoint in memory, for vectors that NumbersInText makes."""
    encoder = EncoderConfig(name="numbers", layer=0, max_tokens=9, dimension=tensors["vectors"].shape[1])
    config = CheckpointConfig(
        kind=kind, models=models, matched_by=matched_by, encoder=encoder, options=dict(options), weights_sha256=""
    )
    return Checkpoint(config, tensors)


def write_neighbours(folder: Path, kind: NeighbourKind, places: int = 300) -> str:
    """Write a checkpoint for the packaged encoder's second layer, with random places; return the folder."""
    chance = np.random.default_rng(0)
    vectors = chance.normal(size=(places, 384))
    tensors = {
        "mean": np.zeros(384, np.float32),
        "vectors": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16),
        "quality": chance.random((places, 2), np.float32),
        "judged": chance.integers(0, 3, (places, 2)).astype(np.float32),
        "usual": np.array([0.4, 0.8], np.float32),
    }
    folder_of = packaged_encoder()
    encoder = EncoderConfig(name="MiniLM", sha256=encoder_sha256(folder_of), layer=2, max_tokens=256, dimension=384)
    options = {"neighbours": 16, "temperature": 0.05, "shrinkage": 1.0}
    save_checkpoint(
        folder,
        tensors,
        kind=kind,
        models=PAIR,
        matched_by="name",
        encoder=encoder,
        options=options,
        training={},
        card="",
    )
    return str(folder)
