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

# So many parts tell any share that a training file asks for.
_PARTS = 10_000


@dataclass(frozen=True)
class Judged:
    """Prompts of one origin, and how good each model's answer to them was."""

    name: str
    prompts: Sequence[str]
    models: tuple[str, ...]
    """Weakest first."""
    quality: Floats
    """Shape (prompts, models), from 0 to 1; NaN where an answer was not judged."""
    judged_again: Mapping[str, Floats] = field(default_factory=dict)
    """Other verdicts on the same answers, by name: measured against, not trained on."""


@dataclass(frozen=True)
class Preferences:
    """Prompts of one origin, and which of two models' answers was preferred."""

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
    """What training gives: what a checkpoint holds, but for the encoder, the card and the names."""

    tensors: Tensors
    options: Mapping[str, Any]
    """As `CheckpointConfig.options`."""
    chosen: Mapping[str, Any]
    """What training settled on, for the reader: penalty, epochs and the like."""
    unseen: Callable[[], Float32s] | None = None
    """Trains routers without a part of the prompts each, and returns what they score those, for all prompts of all sets
    in turn, shape (prompts, models); a router's own scores of what it was trained on are further apart."""


def assign_parts(prompts: Sequence[str], parts: int, seed: int) -> Indices:
    """Deal prompts to `parts` parts, from 0; equal prompts go to the same one, whatever else is dealt."""
    dealt = (blake2b(f"{seed}:{prompt}".encode(), digest_size=8).digest() for prompt in prompts)
    return np.fromiter((int.from_bytes(d) % parts for d in dealt), dtype=np.intp, count=len(prompts))


def choose_validation(prompts: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Which prompts are kept out: about this share of them, and of equal prompts all or none; shape (prompts,).

    Where not all are equal, some are kept out and some are not, however few there are.
    """
    dealt = assign_parts(prompts, _PARTS, seed)
    if not len(dealt):
        return np.zeros(0, dtype=np.bool_)
    first, last = int(dealt.min()), int(dealt.max())
    return dealt < min(max(share * _PARTS, first + 1), last)


def quality_together(data: Sequence[Judged], what: str) -> Floats:
    """The quality of each model's answers to the prompts of all sets, in turn, shape (prompts, models).

    Args:
        what: what needs such sets, in the plural, for messages.

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
