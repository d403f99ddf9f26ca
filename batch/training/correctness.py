"""Trains the correctness router from prompts whose answers were judged, and measures it by cross-validation."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Floats
from batch.errors import InputError
from batch.measures.pair import apgr
from batch.routers.base import Embedder
from batch.routers.length import LengthRouter
from batch.training.data import Judged, Trained, assign_parts, quality_together
from batch.training.fit_heads import Form
from batch.training.kind import FitRequest, VectorTrainer
from batch.training.worded_heads import (
    Setting,
    WordedHeads,
    WordedSet,
    fit_setting,
    fit_settings,
    unseen_probabilities,
    worded_sets,
)

_log = logging.getLogger("batchrouter.training")

FOLDS = 5
_MOST_FOLDS = 10


@dataclass(frozen=True)
class TrainedHeads:
    """What training gives."""

    heads: WordedHeads
    apgr: dict[str, float]
    """Cross-validated, of the strongest model against the weakest, by set or other verdict."""
    apgr_length: dict[str, float]
    """The same of the word count, which needs no training."""


def fit_correctness(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """As `fit_best`, with heads of the forms `linear`, often better with few labels, or `components`.

    The form `landmarks` is not tried: it ranks prompts of the kind that was trained on worse.
    """
    return fit_best(data, embedder, seed, validation, ("linear", "components"))


def fit_best(
    data: Sequence[Judged], embedder: Embedder, seed: int, validation: float, forms: Sequence[Form]
) -> Trained:
    """Fit one head per model on all sets together, of the form and with the penalties that predict best.

    The form, the penalty, and whether words are used are chosen by cross-validation over `1 / validation` parts, ten at
    most; equal prompts share a part, and the seed assigns them. The loss is the squared error of the differences
    between models: log loss would care as much about prompts that are hard for all models, which change no choice.
    Deterministic but for the embedder.

    Args:
        data: sets with the same models.

    Raises:
        InputError: the sets have different models, a model has no judged answer, or prompts are too few to hold out.
    """
    quality_together(data, "heads")  # refuses unfit data before the slow part
    count = min(max(round(1.0 / validation), 2), _MOST_FOLDS)
    # Not the seed itself: whoever dealt before with the same one has taken those prompts away.
    sets, folds = worded_sets(data, embedder, seed), [assign_parts(one.prompts, count, ~seed) for one in data]
    tried = [setting for form in forms for setting in Setting.all_of(form)]
    losses = np.zeros(len(tried))
    for fold in range(count):
        kept = [dealt != fold for dealt in folds]
        if all(keep.all() for keep in kept):
            continue  # with few prompts a part may be empty, and there is nothing to measure
        judged = np.concatenate([one.quality[keep] for one, keep in zip(data, kept, strict=True)])
        if np.isnan(judged).all(axis=0).any():
            raise InputError(f"data: too few judged prompts to hold out {validation:g} of them; add more")
        seen = [one.rows(keep) for one, keep in zip(sets, kept, strict=True)]
        unseen = [one.rows(~keep) for one, keep in zip(sets, kept, strict=True)]
        for place, heads in enumerate(heads for form in forms for heads in fit_settings(seen, form)):
            for number, one in enumerate(unseen):
                losses[place] += _loss(heads.logits(one, number), one.training.quality)
    setting = tried[int(np.argmin(losses))]
    labels = sum(int(np.count_nonzero(~np.isnan(one.quality))) for one in data)
    chosen: dict[str, Any] = {"heads": setting.form, "penalty": setting.penalty}
    if setting.word_penalty is not None:
        chosen["word_penalty"] = setting.word_penalty
    chosen["validation_loss"] = round(float(losses.min()) / labels, 4)
    _log.info("chose %s", ", ".join(f"{key} {value}" for key, value in chosen.items()))
    best = fit_setting(sets, setting)

    def by_others() -> Float32s:
        return np.concatenate(unseen_probabilities(sets, folds, setting))

    return Trained(best.tensors(), best.options(), chosen, by_others)


def fit_and_cross_validate(sets: Sequence[Judged], embedder: Embedder, seed: int, setting: Setting) -> TrainedHeads:
    """Fit one head per model on all sets together, and measure this setting by cross-validation.

    Deterministic: the same sets, encoder and seed give the same heads. The seed assigns prompts to folds; equal
    prompts share a fold. Raises ValueError for a set in which the strongest model is no better than the weakest.
    """
    prepared = worded_sets(sets, embedder, seed)
    words = {
        name: apgr(LengthRouter("strongest", 60.0).score(prompts)[:, 0], good[:, 0], good[:, -1])
        for labelled in sets
        for name, prompts, good in _verdicts(labelled)
    }
    return TrainedHeads(fit_setting(prepared, setting), _cross_validated(sets, prepared, seed, setting), words)


def _cross_validated(
    sets: Sequence[Judged], prepared: Sequence[WordedSet], seed: int, setting: Setting
) -> dict[str, float]:
    """APGR by verdict, every prompt scored by heads that were trained without its fold."""
    folds = [assign_parts(labelled.prompts, FOLDS, seed) for labelled in sets]
    unseen = unseen_probabilities(prepared, folds, setting)
    scores = [probability[:, -1].astype(np.float64) - probability[:, 0] for probability in unseen]
    return {
        name: apgr(score[_rows(labelled, name)], good[:, 0], good[:, -1])
        for labelled, score in zip(sets, scores, strict=True)
        for name, _, good in _verdicts(labelled)
    }


def _rows(labelled: Judged, verdict: str) -> NDArray[np.bool_]:
    """Which prompts a judgement covers, shape (prompts,)."""
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
    """Summed squared error of the differences between models: an error that is the same for all changes no choice."""
    error = 1.0 / (1.0 + np.exp(-logits)) - quality
    judged = (~np.isnan(error)).sum(axis=1)
    several = error[judged > 1]
    apart = several - np.nanmean(several, axis=1, keepdims=True)
    return float(np.nansum(apart**2) + np.nansum(error[judged == 1] ** 2))


def _fit(asked: FitRequest) -> Trained:
    return fit_correctness(asked.judged(), asked.embedder, asked.seed, asked.validation)


TRAINER = VectorTrainer(
    kind="correctness",
    card="One logistic head per model over a prompt's vector, and its words: how likely it answers well.",
    fit=_fit,
)
