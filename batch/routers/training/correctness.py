"""Trains logistic heads, of the correctness router and of the static one, from prompts whose answers were judged.

Each set of prompts gets an intercept of its own while training. Models differ in level from one benchmark to
the next, and without it the weights spend themselves on telling benchmarks apart: the cross-validated APGR of
GSM8K, trained together with MMLU, is .603 without and .651 with it (mean of two dealings to folds; MMLU .659 and
.661). The heads that come out have one intercept, the mean over the prompts trained on.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.errors import InputError
from batch.routers.base import Embedder
from batch.routers.heads import Heads, probabilities
from batch.routers.length import LengthRouter
from batch.routers.logistic import Floats, fit_logistic
from batch.routers.metrics import apgr
from batch.routers.training.data import Judged, Trained, deal

FOLDS = 5
_MOST_FOLDS = 10

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


@dataclass(frozen=True)
class SetHeads:
    """Heads with an intercept for each set of prompts that they were trained on."""

    weight: Floats
    """Shape (models, dimension)."""
    intercepts: Floats
    """Shape (models, sets)."""
    labels: Floats
    """How many each model has in each set, shape (models, sets)."""

    def heads(self) -> Heads:
        """With one intercept for prompts of any origin: the mean over the labels."""
        bias = (self.intercepts * self.labels).sum(axis=1) / self.labels.sum(axis=1)
        return Heads(self.weight.astype(np.float32), bias.astype(np.float32))

    def logits(self, vectors: Floats, one: int) -> Floats:
        """Log odds of a good answer for prompts of set number `one`, shape (len(vectors), models)."""
        return vectors @ self.weight.T + self.intercepts[:, one]


def fit_correctness(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """Fit one head per model on all sets together, with the penalty that predicts held-out prompts best.

    Deterministic but for the embedder. Each of `1 / validation` parts, ten at most, is held out once while the penalty
    is chosen; equal prompts share a part, and the seed deals them. Chosen by log loss, which needs no pair of models.

    Args:
        data: sets with the same models.

    Raises:
        InputError: the sets have different models, a model has no judged answer, or prompts are too few to hold out.
    """
    _check(data)
    folds = min(max(round(1.0 / validation), 2), _MOST_FOLDS)
    # Not the seed itself: whoever dealt before with the same one has taken those prompts away.
    parts = [deal(one.prompts, folds, ~seed) for one in data]
    vectors = [embedder.embed(one.prompts).astype(np.float64) for one in data]
    qualities = [one.quality for one in data]
    losses = np.zeros(len(PENALTIES))
    for fold in range(folds):
        kept = [part != fold for part in parts]
        judged = np.concatenate([quality[keep] for quality, keep in zip(qualities, kept, strict=True)])
        if np.isnan(judged).all(axis=0).any() or all(keep.all() for keep in kept):
            raise InputError(f"data: too few judged prompts to hold out {validation:g} of them; add more")
        fitted = _fitted_without(vectors, qualities, kept)
        for place, heads in enumerate(fitted):
            for number, (one, quality, keep) in enumerate(zip(vectors, qualities, kept, strict=True)):
                losses[place] += _log_loss(heads.logits(one[~keep], number), quality[~keep])
    best = int(np.argmin(losses))
    heads = fit_heads(vectors, qualities, PENALTIES[best]).heads()
    count = sum(int(np.count_nonzero(~np.isnan(quality))) for quality in qualities)
    chosen = {"penalty": PENALTIES[best], "validation_log_loss": round(float(losses[best]) / count, 4)}
    return Trained(heads.tensors(), {}, chosen)


def train(sets: Sequence[Judged], embedder: Embedder, seed: int) -> TrainedHeads:
    """Fit one head per model on all sets together, with the penalty that has the best APGR in cross-validation.

    Deterministic: the same sets, encoder and seed give the same heads. The seed deals prompts to folds; equal
    prompts share a fold. Raises ValueError for a set in which the strongest model is no better than the weakest.
    """
    vectors = [embedder.embed(labelled.prompts).astype(np.float64) for labelled in sets]
    folds = [deal(labelled.prompts, FOLDS, seed) for labelled in sets]
    tried = _cross_validated(sets, vectors, folds)
    best = max(PENALTIES, key=lambda penalty: np.mean([tried[penalty][labelled.name] for labelled in sets]))
    words = {
        name: apgr(LengthRouter("strongest", 60.0).score(prompts)[:, 0], good[:, 0], good[:, -1])
        for labelled in sets
        for name, prompts, good in _verdicts(labelled)
    }
    heads = fit_heads(vectors, [labelled.quality for labelled in sets], best).heads()
    return TrainedHeads(heads, best, tried[best], words)


def fit_heads(
    vectors: Sequence[Floats], good: Sequence[Floats], penalty: float, start: SetHeads | None = None
) -> SetHeads:
    """Fit one head per column of `good` on sets of vectors, each set with an intercept of its own.

    NaN in `good` is no label; each column needs one that is. `start` is where to look first: it saves time.
    """
    together, labels = np.concatenate(vectors), np.concatenate(good)
    mean, spread = together.mean(axis=0), together.std(axis=0)
    spread[spread == 0.0] = 1.0
    sizes = [len(one) for one in vectors]
    own_intercept = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    features = np.hstack([(together - mean) / spread, own_intercept])
    dimension = together.shape[1]
    penalties = np.concatenate([np.full(dimension, penalty), np.full(len(sizes), _INTERCEPT_PENALTY)])
    counts = np.stack([own_intercept[~np.isnan(column)].sum(axis=0) for column in labels.T])
    fitted = []
    for model, column in enumerate(labels.T):
        there = ~np.isnan(column)
        from_here = None
        if start is not None:
            intercepts = start.intercepts[model] + start.weight[model] @ mean
            from_here = np.concatenate([start.weight[model] * spread, intercepts])
        known = features if there.all() else features[there]
        fitted.append(fit_logistic(known, column[there], penalties, from_here))
    coefficients = np.stack(fitted)
    weight = coefficients[:, :dimension] / spread
    return SetHeads(weight, coefficients[:, dimension:] - (weight @ mean)[:, None], counts)


def _fitted_without(
    vectors: Sequence[Floats], good: Sequence[Floats], kept: Sequence[NDArray[np.bool_]]
) -> Iterator[SetHeads]:
    """Heads for each of PENALTIES, fitted on what is kept."""
    left = [one[keep] for one, keep in zip(vectors, kept, strict=True)]
    labels = [one[keep] for one, keep in zip(good, kept, strict=True)]
    heads: SetHeads | None = None
    for penalty in PENALTIES:
        heads = fit_heads(left, labels, penalty, heads)
        yield heads


def _cross_validated(
    sets: Sequence[Judged], vectors: Sequence[Floats], folds: Sequence[NDArray[np.intp]]
) -> dict[float, dict[str, float]]:
    """APGR by penalty and verdict, every prompt scored by heads that were trained without its fold."""
    scores = {penalty: [np.empty(len(one)) for one in vectors] for penalty in PENALTIES}
    for fold in range(FOLDS):
        kept = [dealt != fold for dealt in folds]
        fitted = _fitted_without(vectors, [labelled.quality for labelled in sets], kept)
        for penalty, heads in zip(PENALTIES, fitted, strict=True):
            shipped = heads.heads()
            for one, keep, score in zip(vectors, kept, scores[penalty], strict=True):
                probability = probabilities(shipped.logits(one[~keep].astype(np.float32)))
                score[~keep] = probability[:, -1] - probability[:, 0]
    return {
        penalty: {
            name: apgr(score[_rows(labelled, name)], good[:, 0], good[:, -1])
            for labelled, score in zip(sets, scores[penalty], strict=True)
            for name, _, good in _verdicts(labelled)
        }
        for penalty in PENALTIES
    }


def _rows(labelled: Judged, verdict: str) -> NDArray[np.bool_]:
    """Which prompts a verdict is about."""
    again = labelled.judged_again.get(verdict)
    everything = np.ones(len(labelled.prompts), dtype=np.bool_)
    return everything if again is None else ~np.isnan(again).any(axis=1)


def _verdicts(labelled: Judged) -> Iterator[tuple[str, Sequence[str], Floats]]:
    yield labelled.name, labelled.prompts, labelled.quality
    for name, good in labelled.judged_again.items():
        rows = _rows(labelled, name)
        yield name, [prompt for prompt, there in zip(labelled.prompts, rows, strict=True) if there], good[rows]


def _log_loss(logits: Floats, quality: Floats) -> float:
    """Summed over the judged answers."""
    return float(np.nansum(np.logaddexp(0.0, logits) - quality * logits))


def _check(data: Sequence[Judged]) -> None:
    models = data[0].models
    if any(one.models != models for one in data):
        raise InputError("data: heads need sets that judge the same models in the same order")
    quality = np.concatenate([one.quality for one in data])
    for model, judged in zip(models, ~np.isnan(quality).all(axis=0), strict=True):
        if not judged:
            raise InputError(f"data: no answer of {model} was judged; leave it out of the models, or judge some")
