"""Bootstrap: the same prompts drawn again and again with replacement, to see how far chance moves a figure."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.random import default_rng

from batch.arrays import Floats, Indices

# Weights held at a time. A thousand resamples of a million prompts would be 8 GB.
_BLOCK = 1 << 20

# The middle 95 %.
_TAILS = (2.5, 97.5)


def groups_of(prompts: Sequence[str]) -> Indices:
    """Number prompts from 0, equal ones alike, shape (prompts,)."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
    return np.array([places[prompt] for prompt in prompts], dtype=np.intp)


def resampled(groups: Indices, count: int, seed: int) -> Iterator[Floats]:
    """Draw `count` resamples; yield how often each has each prompt, in blocks of shape (some resamples, prompts).

    Equal prompts are drawn together, because two copies of one prompt are not two observations. The same seed draws
    the same resamples, so that routers can be compared on them.

    Args:
        groups: number of each prompt, as `groups_of` gives it, shape (prompts,).
    """
    chance = default_rng(seed)
    distinct = int(groups.max()) + 1
    at_once = max(1, _BLOCK // len(groups))
    for start in range(0, count, at_once):
        rows = min(at_once, count - start)
        drawn = chance.integers(0, distinct, (rows, distinct)) + distinct * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * distinct).reshape(rows, distinct)
        yield times[:, groups].astype(np.float64)


def interval(values: Floats) -> tuple[float, float] | None:
    """The middle 95 % of a measure over resamples, of shape (resamples,).

    Returns `None` if the measure is NaN (undefined) on more resamples than either tail holds.
    """
    defined = values[np.isfinite(values)]
    if len(defined) == 0 or len(defined) < len(values) * (1 - _TAILS[0] / 100):
        return None
    low, high = np.percentile(defined, _TAILS)
    return float(low), float(high)
