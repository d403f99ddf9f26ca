"""Trains the correctness router from prompts whose answers were judged, and measures it by cross-validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from batch.errors import InputError
from batch.routers.base import Embedder
from batch.routers.heads import Heads, probabilities
from batch.routers.length import LengthRouter
from batch.routers.logistic import Floats
from batch.routers.metrics import apgr
from batch.routers.training.data import Judged, Trained, deal, quality_together
from batch.routers.training.fit_heads import PENALTIES, Form, SetHeads, Training, fit_heads

FOLDS = 5
_MOST_FOLDS = 10
_RANKS = 1 << 62


@dataclass(frozen=True)
class TrainedHeads:
    """What training gives."""

    heads: Heads
    penalty: float
    apgr: dict[str, float]
    """Cross-validated, of the strongest model against the weakest, by set or other verdict."""
    apgr_length: dict[str, float]
    """The same of the word count, which needs no training."""


def fit_correctness(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """As `fit_best`: straight heads, often better where labels are few, or those over landmarks by components.

    Not those over landmarks of plain vectors, which rank prompts of the kind trained on worse.
    """
    return fit_best(data, embedder, seed, validation, ("linear", "components"))


def fit_best(
    data: Sequence[Judged], embedder: Embedder, seed: int, validation: float, forms: Sequence[Form]
) -> Trained:
    """Fit one head per model on all sets together, of the form and with the penalty that predict best.

    Deterministic but for the embedder. Each of `1 / validation` parts, ten at most, is held out once while form and
    penalty are chosen; equal prompts share a part, and the seed deals them. Chosen by the squared error of what models
    differ by, in any number of them: log loss cares as much for what is hard for all.

    Args:
        data: sets with the same models.

    Raises:
        InputError: the sets have different models, a model has no judged answer, or prompts are too few to hold out.
    """
    quality_together(data, "heads")  # refused before the slow part
    count = min(max(round(1.0 / validation), 2), _MOST_FOLDS)
    # Not the seed itself: whoever dealt before with the same one has taken those prompts away.
    sets, folds = _embedded(data, embedder, seed), [deal(one.prompts, count, ~seed) for one in data]
    tried = [(form, penalty) for form in forms for penalty in PENALTIES[form]]
    losses = np.zeros(len(tried))
    for fold in range(count):
        kept = [dealt != fold for dealt in folds]
        if all(keep.all() for keep in kept):
            continue  # few prompts leave some part empty, in which there is nothing to measure
        judged = np.concatenate([one.quality[keep] for one, keep in zip(sets, kept, strict=True)])
        if np.isnan(judged).all(axis=0).any():
            raise InputError(f"data: too few judged prompts to hold out {validation:g} of them; add more")
        fitted = (heads for form in forms for heads in _fitted(sets, kept, form))
        for place, heads in enumerate(fitted):
            for number, (one, keep) in enumerate(zip(sets, kept, strict=True)):
                losses[place] += _loss(heads.logits(one.vectors[~keep], number), one.quality[~keep])
    form, penalty = tried[int(np.argmin(losses))]
    labels = sum(int(np.count_nonzero(~np.isnan(one.quality))) for one in sets)
    chosen = {"heads": form, "penalty": penalty, "validation_loss": round(float(losses.min()) / labels, 4)}
    return Trained(next(fit_heads(sets, form, [penalty])).heads().tensors(), {}, chosen)


def train(sets: Sequence[Judged], embedder: Embedder, seed: int, form: Form = "landmarks") -> TrainedHeads:
    """Fit one head per model on all sets together, with the penalty that has the best APGR in cross-validation.

    Deterministic: the same sets, encoder and seed give the same heads. The seed deals prompts to folds; equal
    prompts share a fold. Raises ValueError for a set in which the strongest model is no better than the weakest.
    """
    embedded = _embedded(sets, embedder, seed)
    folds = [deal(labelled.prompts, FOLDS, seed) for labelled in sets]
    tried = _cross_validated(sets, embedded, folds, form)
    best = max(PENALTIES[form], key=lambda penalty: np.mean([tried[penalty][labelled.name] for labelled in sets]))
    words = {
        name: apgr(LengthRouter("strongest", 60.0).score(prompts)[:, 0], good[:, 0], good[:, -1])
        for labelled in sets
        for name, prompts, good in _verdicts(labelled)
    }
    return TrainedHeads(next(fit_heads(embedded, form, [best])).heads(), best, tried[best], words)


def _embedded(data: Sequence[Judged], embedder: Embedder, seed: int) -> list[Training]:
    return [
        Training(embedder.embed(one.prompts).astype(np.float64), one.quality, deal(one.prompts, _RANKS, seed))
        for one in data
    ]


def _fitted(sets: Sequence[Training], kept: Sequence[NDArray[np.bool_]], form: Form) -> Iterator[SetHeads]:
    """Heads for each penalty of a form, fitted on what is kept."""
    return fit_heads([one.rows(keep) for one, keep in zip(sets, kept, strict=True)], form, PENALTIES[form])


def _cross_validated(
    sets: Sequence[Judged], embedded: Sequence[Training], folds: Sequence[NDArray[np.intp]], form: Form
) -> dict[float, dict[str, float]]:
    """APGR by penalty and verdict, every prompt scored by heads that were trained without its fold."""
    scores = {penalty: [np.empty(len(one.vectors)) for one in embedded] for penalty in PENALTIES[form]}
    for fold in range(FOLDS):
        kept = [dealt != fold for dealt in folds]
        for penalty, heads in zip(PENALTIES[form], _fitted(embedded, kept, form), strict=True):
            shipped = heads.heads()
            for one, keep, score in zip(embedded, kept, scores[penalty], strict=True):
                probability = probabilities(shipped.logits(one.vectors[~keep].astype(np.float32)))
                score[~keep] = probability[:, -1] - probability[:, 0]
    found: dict[float, dict[str, float]] = {penalty: {} for penalty in PENALTIES[form]}
    for penalty, (labelled, place) in product(PENALTIES[form], zip(sets, range(len(sets)), strict=True)):
        for name, _, good in _verdicts(labelled):
            found[penalty][name] = apgr(scores[penalty][place][_rows(labelled, name)], good[:, 0], good[:, -1])
    return found


def _rows(labelled: Judged, verdict: str) -> NDArray[np.bool_]:
    """Which prompts a verdict is about."""
    again = labelled.judged_again.get(verdict)
    if again is None:
        return np.ones(len(labelled.prompts), dtype=np.bool_)
    return np.array([not np.isnan(row).any() for row in again], dtype=np.bool_)


def _verdicts(labelled: Judged) -> Iterator[tuple[str, Sequence[str], Floats]]:
    yield labelled.name, labelled.prompts, labelled.quality
    for name, good in labelled.judged_again.items():
        rows = _rows(labelled, name)
        yield name, [prompt for prompt, there in zip(labelled.prompts, rows, strict=True) if there], good[rows]


def _loss(logits: Floats, quality: Floats) -> float:
    """Summed squared error of what models differ by: an error that is alike for all of them changes no choice."""
    error = 1.0 / (1.0 + np.exp(-logits)) - quality
    judged = (~np.isnan(error)).sum(axis=1)
    several = error[judged > 1]
    apart = several - np.nanmean(several, axis=1, keepdims=True)
    return float(np.nansum(apart**2) + np.nansum(error[judged == 1] ** 2))
