"""Trains the static router: the heads of the correctness router, on means of token embeddings.

Straight heads only. Their value for a mean is the mean of their values for the tokens, which can be looked up.
"""

from collections.abc import Sequence

from batch.routers.base import Embedder
from batch.training.correctness import fit_best
from batch.training.data import Judged, Trained
from batch.training.encoders import token_encoder
from batch.training.kind import FitRequest, VectorTrainer


def fit_static(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """As `fit_best`, where `embedder` is `TokenMeans` of the encoder's `token_vectors`."""
    return fit_best(data, embedder, seed, validation, ("linear",))


def _fit(asked: FitRequest) -> Trained:
    return fit_static(asked.judged(), asked.embedder, asked.seed, asked.validation)


TRAINER = VectorTrainer(
    kind="static",
    card="One logistic head per model over the mean of a prompt's token embeddings, and words; no transformer.",
    fit=_fit,
    own_encoder=token_encoder,
)
