"""What routers are trained on, and what training gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Floats, Indices
from batch.errors import InputError
from batch.routers.checkpoints.format import Tensors

# Prompts are assigned to so many parts, of which a share is taken: fine enough for any share in a training file.
_PARTS = 10_000


@dataclass(frozen=True)
class Judged:
    """One data set: prompts, and the quality of each model's answer to them."""

    name: str
    prompts: Sequence[str]
    models: tuple[str, ...]
    """Weakest first."""
    quality: Floats
    """Shape (prompts, models), from 0 to 1; NaN where an answer was not judged."""
    judged_again: Mapping[str, Floats] = field(default_factory=dict)
    """Other judgements of the same answers, by name, shaped as `quality`: for measuring, not for training."""


@dataclass(frozen=True)
class Preferences:
    """One data set: prompts, and which of two models' answers was preferred."""

    name: str
    prompts: Sequence[str]
    first: Sequence[str]
    """A model's name for each prompt."""
    second: Sequence[str]
    """The other model's."""
    outcome: Floats
    """Shape (prompts,): 1 where the first was preferred, 0 where the second was, one half for a tie."""


@dataclass(frozen=True)
class Trained:
    """The result of training: the content of a checkpoint without the encoder, the card and the models' names."""

    tensors: Tensors
    options: Mapping[str, Any]
    """As `CheckpointConfig.options`."""
    chosen: Mapping[str, Any]
    """Settings that training chose, such as penalty or epochs: for the reader of the card."""
    unseen: Callable[[], Float32s] | None = None
    """Returns out-of-fold scores: of each training prompt, by a router trained without its fold, for all prompts of all
    sets in turn, shape (prompts, models). A router's scores of its own training prompts are more extreme than these."""


def assign_parts(prompts: Sequence[str], parts: int, seed: int) -> Indices:
    """Number of each prompt's part, from 0 to `parts - 1`, shape (prompts,).

    It depends only on the prompt and the seed, so equal prompts are in the same part in any data.
    """
    dealt = (blake2b(f"{seed}:{prompt}".encode(), digest_size=8).digest() for prompt in prompts)
    return np.fromiter((int.from_bytes(d) % parts for d in dealt), dtype=np.intp, count=len(prompts))


def choose_validation(prompts: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose about this share of the prompts for validation; of equal prompts all or none. Returns shape (prompts,).

    Unless all prompts are equal, some are chosen and some are not, even of very few.
    """
    dealt = assign_parts(prompts, _PARTS, seed)
    if not len(dealt):
        return np.zeros(0, dtype=np.bool_)
    first, last = int(dealt.min()), int(dealt.max())
    return dealt < min(max(share * _PARTS, first + 1), last)


def quality_together(data: Sequence[Judged], what: str) -> Floats:
    """The quality of each model's answers to the prompts of all sets, one set after the other; shape (prompts, models).

    Args:
        what: name of the routers that need such sets, in the plural, for messages.

    Raises:
        InputError: the sets have different models, or a model has no judged answer.
    """
    models = data[0].models
    if any(one.models != models for one in data):
        raise InputError(f"data: {what} need sets that judge the same models in the same order")
    quality = np.concatenate([one.quality for one in data])
    for model, judged in zip(models, ~np.isnan(quality).all(axis=0), strict=True):
        if not judged:
            raise InputError(f"data: no answer of {model} was judged; leave it out of the models, or judge some")
    return quality
