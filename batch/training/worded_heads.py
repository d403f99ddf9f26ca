"""Logistic heads over vectors, alone or with weights of single words."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Floats, Indices
from batch.routers.base import Embedder
from batch.routers.checkpoints.format import Tensors
from batch.routers.estimators.logistic_heads import probabilities
from batch.routers.estimators.word_weights import WordWeights, word_tokens
from batch.training.data import Judged, assign_parts
from batch.training.fit_heads import PENALTIES, Form, SetHeads, Training, fit_heads
from batch.training.fit_words import WORD_PENALTIES, fit_words, words_of
from batch.training.logistic_regression import Sparse

_RANKS = 1 << 62


@dataclass(frozen=True)
class Setting:
    """How heads are fitted."""

    form: Form
    penalty: float
    word_penalty: float | None
    """`None`: without weights of words."""

    @classmethod
    def all_of(cls, form: Form) -> list["Setting"]:
        """All settings that are tried for a form, in the order of `fit_settings`."""
        return [cls(form, penalty, words) for penalty in PENALTIES[form] for words in (None, *WORD_PENALTIES)]


@dataclass(frozen=True)
class WordedSet:
    """One set of prompts to fit heads and weights of words on."""

    training: Training
    words: Sparse
    """The words of each prompt, as `words_of` gives them."""

    def rows(self, kept: NDArray[np.bool_]) -> "WordedSet":
        """Only these prompts."""
        return WordedSet(self.training.rows(kept), self.words[kept])


@dataclass(frozen=True)
class WordedHeads:
    """Heads, and the weights of words that are added to their log odds."""

    heads: SetHeads
    words: WordWeights | None

    def logits(self, one: WordedSet, number: int | None = None) -> Floats:
        """Log odds of a good answer, shape (prompts, models).

        Args:
            number: of the set, among those fitted on, that the prompts are from; left out, prompts of any origin, which
                get the intercept that a checkpoint has.
        """
        if number is None:
            found = self.heads.heads().logits(one.training.vectors.astype(np.float32)).astype(np.float64)
        else:
            found = self.heads.logits(one.training.vectors, number)
        if self.words is None:
            return found
        added: Floats = one.words[:, self.words.tokens] @ self.words.weight.T
        return found + added

    def tensors(self) -> Tensors:
        """As a checkpoint stores them."""
        heads = self.heads.heads().tensors()
        return heads if self.words is None else {**heads, **self.words.tensors()}

    def options(self) -> dict[str, str]:
        """What a checkpoint says of them."""
        return {} if self.words is None else self.words.options()


def worded_sets(data: Sequence[Judged], embedder: Embedder, seed: int) -> list[WordedSet]:
    """Embed the prompts of each set and look their words up; the seed draws landmarks."""
    words = word_tokens()
    return [
        WordedSet(
            Training(
                embedder.embed(one.prompts).astype(np.float64), one.quality, assign_parts(one.prompts, _RANKS, seed)
            ),
            words_of(one.prompts, words),
        )
        for one in data
    ]


def unseen_probabilities(sets: Sequence[WordedSet], folds: Sequence[Indices], setting: Setting) -> list[Float32s]:
    """Predict each prompt by heads that were fitted without its fold; one array of shape (prompts, models) a set.

    Args:
        folds: number of each prompt's fold, from 0, for each set.
    """
    found = [np.empty(one.training.quality.shape, dtype=np.float32) for one in sets]
    for fold in np.unique(np.concatenate(folds)):
        kept = [dealt != fold for dealt in folds]
        heads = fit_setting([one.rows(keep) for one, keep in zip(sets, kept, strict=True)], setting)
        for one, keep, probability in zip(sets, kept, found, strict=True):
            probability[~keep] = probabilities(heads.logits(one.rows(~keep)))
    return found


def fit_settings(sets: Sequence[WordedSet], form: Form) -> Iterator[WordedHeads]:
    """Fit heads on all sets with each of `Setting.all_of`, in turn; each model needs a label."""
    for heads in fit_heads([one.training for one in sets], form, PENALTIES[form]):
        yield WordedHeads(heads, None)
        yield from (WordedHeads(heads, words) for words in _words(sets, heads, WORD_PENALTIES))


def fit_setting(sets: Sequence[WordedSet], setting: Setting) -> WordedHeads:
    """Fit heads on all sets with one setting; each model needs a label."""
    heads = next(fit_heads([one.training for one in sets], setting.form, [setting.penalty]))
    if setting.word_penalty is None:
        return WordedHeads(heads, None)
    return WordedHeads(heads, next(_words(sets, heads, [setting.word_penalty])))


def _words(sets: Sequence[WordedSet], heads: SetHeads, penalties: Sequence[float]) -> Iterator[WordWeights]:
    quality = np.concatenate([one.training.quality for one in sets])
    logits = np.concatenate([heads.logits(one.training.vectors, number) for number, one in enumerate(sets)])
    rank = np.concatenate([one.training.rank for one in sets])
    yield from fit_words([one.words for one in sets], rank, quality, logits, penalties)
