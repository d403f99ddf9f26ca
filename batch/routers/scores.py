"""Calls a router and checks its scores: it may be a class of the user's own."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.base import Router

# Prompts that a router is given at a time: enough to sort them by length, while their vectors take 25 MB. A shard of
# short rows has ten times as many.
_AT_ONCE = 16_384

_Number = TypeVar("_Number", bound=np.floating[Any])


def scores_of(router: Router, kind: str, texts: Sequence[str]) -> Float32s:
    """Return the router's scores, shape (texts, columns); it gets `_AT_ONCE` texts at a time, which bounds its memory.

    `kind` is the router's name in messages. Raises SpecError if it returns anything but one finite number per text and
    column.
    """
    starts = range(0, max(len(texts), 1), _AT_ONCE)
    return np.concatenate([_checked(router, kind, texts[start : start + _AT_ONCE]) for start in starts])


def ranking_scores(scores: NDArray[_Number], columns: tuple[str, ...], models: tuple[str, ...]) -> NDArray[_Number]:
    """The numbers by which plans rank prompts: a pair router's column, else the strongest's minus the cheapest's.

    Args:
        scores: of a router whose `models` are `columns`, shape (prompts, columns).
        models: a job's, cheapest first, or a training's, weakest first.

    Returns:
        Shape (prompts,), as precise as `scores`.
    """
    if len(columns) == 1:
        return scores[:, 0]
    strongest, cheapest = (columns.index(models[end]) for end in (-1, 0))
    return scores[:, strongest] - scores[:, cheapest]


def _checked(router: Router, kind: str, texts: Sequence[str]) -> Float32s:
    expected = (len(texts), len(router.models))
    returned = router.score(texts)
    try:
        scores = np.asarray(returned, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise SpecError(f"router {kind}: `score` returned no array of numbers: {error}") from error
    if scores.shape != expected:
        raise SpecError(f"router {kind}: `score` returned the shape {scores.shape}, not {expected}")
    if not np.isfinite(scores).all():
        raise SpecError(f"router {kind}: `score` returned a number that is not finite")
    return scores
