"""Trains the heads of the static router, which are those of the correctness router on other vectors."""

from collections.abc import Sequence

from batch.routers.base import Embedder
from batch.routers.training.correctness import fit_correctness
from batch.routers.training.data import Judged, Trained


def fit_static(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """As `fit_correctness`, where `embedder` gives the mean of a prompt's token embeddings."""
    return fit_correctness(data, embedder, seed, validation)
