"""Trains the heads of the correctness router from prompts whose answers were judged.

Each set of prompts gets an intercept of its own while training. Models differ in level from one benchmark to
the next, and without it the weights spend themselves on telling benchmarks apart: the cross-validated APGR of
GSM8K, trained together with MMLU, is .603 without and .651 with it (mean of two dealings to folds; MMLU .659 and
.661). The heads that come out have one intercept, the mean over the prompts trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.routers.base import Embedder
from batch.routers.heads import Heads, probabilities
from batch.routers.length import LengthRouter
from batch.routers.logistic import Floats, fit_logistic
from batch.routers.metrics import apgr
from batch.routers.training.data import Judged, deal

FOLDS = 5

# Squared weights of standardised features, against the summed log loss. The best is near 5,000 for 7,600 prompts
# and flat around it; far below, the heads learn single prompts by heart.
PENALTIES = (500.0, 1000.0, 2000.0, 5000.0, 10_000.0)

# Intercepts are free but for what keeps a set with only one kind of label finite.
_INTERCEPT_PENALTY = 1e-3


@dataclass(frozen=True)
class TrainedHeads:
    """What training gives."""

    heads: Heads
    penalty: float
    apgr: dict[str, float]
    """Cross-validated, of the strongest model against the weakest, by set or other verdict."""
    apgr_length: dict[str, float]
    """The same of the word count, which needs no training."""


def train(sets: Sequence[Judged], embedder: Embedder, seed: int) -> TrainedHeads:
    """Fit one head per model on all sets together, with the penalty that does best in cross-validation.

    Deterministic: the same sets, encoder and seed give the same heads. The seed deals prompts to folds; equal
    prompts share a fold. Raises ValueError for a set in which the strongest model is no better than the weakest.
    """
    vectors = [embedder.embed(labelled.prompts).astype(np.float64) for labelled in sets]
    folds = [deal(labelled.prompts, FOLDS, seed) for labelled in sets]
    tried = {penalty: _cross_validated(sets, vectors, folds, penalty) for penalty in PENALTIES}
    best = max(PENALTIES, key=lambda penalty: np.mean([tried[penalty][labelled.name] for labelled in sets]))
    words = {
        name: apgr(LengthRouter("strongest", 60.0).score(labelled.prompts)[:, 0], good[:, 0], good[:, -1])
        for labelled in sets
        for name, good in _verdicts(labelled)
    }
    heads = fit_heads(vectors, [labelled.quality for labelled in sets], best)
    return TrainedHeads(heads, best, tried[best], words)


def fit_heads(vectors: Sequence[Floats], good: Sequence[Floats], penalty: float) -> Heads:
    """Fit one head per column of `good` on sets of vectors, each set with an intercept of its own."""
    together, labels = np.concatenate(vectors), np.concatenate(good)
    mean, spread = together.mean(axis=0), together.std(axis=0)
    spread[spread == 0.0] = 1.0
    sizes = [len(one) for one in vectors]
    own_intercept = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    features = np.hstack([(together - mean) / spread, own_intercept])
    dimension = together.shape[1]
    penalties = np.concatenate([np.full(dimension, penalty), np.full(len(sizes), _INTERCEPT_PENALTY)])
    fitted = np.stack([fit_logistic(features, column, penalties) for column in labels.T])
    weight = fitted[:, :dimension] / spread
    bias = fitted[:, dimension:] @ (np.array(sizes) / sum(sizes)) - weight @ mean
    return Heads(weight.astype(np.float32), bias.astype(np.float32))


def _cross_validated(
    sets: Sequence[Judged], vectors: Sequence[Floats], folds: Sequence[NDArray[np.intp]], penalty: float
) -> dict[str, float]:
    """APGR by verdict, every prompt scored by heads that were trained without its fold."""
    scores = [np.empty(len(one)) for one in vectors]
    for fold in range(FOLDS):
        kept = [dealt != fold for dealt in folds]
        heads = fit_heads(
            [one[keep] for one, keep in zip(vectors, kept, strict=True)],
            [labelled.quality[keep] for labelled, keep in zip(sets, kept, strict=True)],
            penalty,
        )
        for one, keep, score in zip(vectors, kept, scores, strict=True):
            probability = probabilities(heads.logits(one[~keep].astype(np.float32)))
            score[~keep] = probability[:, -1] - probability[:, 0]
    return {
        name: apgr(score, good[:, 0], good[:, -1])
        for labelled, score in zip(sets, scores, strict=True)
        for name, good in _verdicts(labelled)
    }


def _verdicts(labelled: Judged) -> Iterator[tuple[str, Floats]]:
    yield labelled.name, labelled.quality
    yield from labelled.judged_again.items()
