"""Trains the static router: the heads of the correctness router, on means of token embeddings.

Straight heads only. Their value for a mean is the mean of their values for the tokens, which can be looked up.
"""

from collections.abc import Sequence

from batch.routers.base import Embedder
from batch.training.correctness import fit_best
from batch.training.data import Judged, Trained


def fit_static(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """As `fit_best`, where `embedder` is `TokenMeans` of the encoder's `token_vectors`."""
    return fit_best(data, embedder, seed, validation, ("linear",))
