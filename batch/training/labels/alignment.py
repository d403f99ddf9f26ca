"""Brings labels from several places into one order of models, and chooses the prompts to keep out of training."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Floats
from batch.errors import InputError
from batch.measures.pair import least_gap
from batch.training.data import Judged, Preferences
from batch.training.labels.files import Labels

Data = Judged | Preferences

# With fewer prompts no part is large enough to measure a router on.
FEWEST_PROMPTS = 20

_BUCKETS = 1 << 32


def as_judged(data: Data, models: tuple[str, ...]) -> Judged:
    """The same labels as quality of `models`, NaN where there is none; a prompt without any is left out.

    A preference counts as quality 1 for the winner and 0 for the loser, a tie as one half for both.
    """
    quality = np.full((len(data.prompts), len(models)), np.nan)
    if isinstance(data, Judged):
        for column, model in enumerate(models):
            if model in data.models:
                quality[:, column] = data.quality[:, data.models.index(model)]
    else:
        place = {model: column for column, model in enumerate(models)}
        for row, (first, second, outcome) in enumerate(zip(data.first, data.second, data.outcome, strict=True)):
            if first in place and second in place and first != second:
                quality[row, place[first]] = outcome
                quality[row, place[second]] = 1.0 - outcome
    labelled = np.flatnonzero(~np.isnan(quality).all(axis=1)).tolist()
    return Judged(data.name, [data.prompts[i] for i in labelled], models, quality[labelled])


def aligned(labels: Sequence[Labels], wanted: tuple[str, ...] | None) -> tuple[tuple[str, ...], list[Data]]:
    """Return the models, weakest first, and the data of each item in terms of them.

    Args:
        wanted: the models, weakest first; `None`: all that are labelled, by mean quality.

    Raises:
        InputError: fewer than two models are labelled, one that is wanted is not, there are too few prompts, or the
            strongest model is no better than the weakest.
    """
    known = tuple(dict.fromkeys(model for one in labels for model in _named(one.data)))
    missing = next((model for model in wanted or () if model not in known), None)
    if missing is not None:
        raise InputError(f"models: {missing!r} is nowhere in data; there are {', '.join(known)}")
    means = mean_quality([as_judged(one.data, known) for one in labels], known)
    unjudged = next((model for model in wanted or () if np.isnan(means[model])), None)
    if unjudged is not None:
        raise InputError(f"models: no answer of {unjudged!r} was ever judged")
    models = wanted or tuple(sorted((m for m in known if not np.isnan(means[m])), key=lambda m: means[m]))
    if len(models) < 2:
        raise InputError(f"data: only {', '.join(models)} has labels; a router needs two models or more")
    data = [_within(one.data, models) for one in labels]
    empty = next((place for place, one in enumerate(data) if not one.prompts), None)
    if empty is not None:
        raise InputError(f"data.{empty}: no row has a label of {', '.join(models)}")
    prompts = len({prompt for one in data for prompt in one.prompts})
    if prompts < FEWEST_PROMPTS:
        raise InputError(
            f"data: {prompts} different prompts have labels; {FEWEST_PROMPTS} is the least, and a few hundred are good"
        )
    weak, strong = gap([as_judged(one, models) for one in data])
    if not strong - weak > least_gap(weak, strong):
        raise InputError(
            f"data: {models[-1]} is no better than {models[0]} (mean quality {strong:.3f} and {weak:.3f}), so nothing "
            "is gained by asking it; check the labels, or the order of `models`"
        )
    return models, data


def mean_quality(data: Sequence[Judged], models: tuple[str, ...]) -> dict[str, float]:
    """Each model's mean over all its labels; NaN where it has none."""
    together = np.concatenate([one.quality for one in data])
    counts = (~np.isnan(together)).sum(axis=0)
    sums = np.nansum(together, axis=0)
    return {m: float(s / c) if c else float("nan") for m, s, c in zip(models, sums, counts, strict=True)}


def gap(data: Sequence[Judged]) -> tuple[float, float]:
    """Mean quality of the weakest and of the strongest model, on the prompts that have labels of both, if any."""
    ends = np.concatenate([one.quality[:, [0, -1]] for one in data])
    both = ends[~np.isnan(ends).any(axis=1)]
    weak, strong = np.nanmean(both if len(both) else ends, axis=0)
    return float(weak), float(strong)


def choose_held_out(prompts: Sequence[str], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose the prompts to keep out of training: about this share, and of equal prompts all or none.

    Independent of `deal`, by which training splits what is left.
    """
    drawn = (blake2b(f"{seed}:{prompt}".encode(), digest_size=4, person=b"held out").digest() for prompt in prompts)
    places = np.fromiter((int.from_bytes(d) for d in drawn), dtype=np.int64, count=len(prompts))
    return places < share * _BUCKETS


def part_of(data: Data, chosen: NDArray[np.bool_]) -> Data:
    """The rows where `chosen` holds."""
    rows: list[int] = np.flatnonzero(chosen).tolist()
    prompts = [data.prompts[i] for i in rows]
    if isinstance(data, Judged):
        again = {name: verdicts[rows] for name, verdicts in data.judged_again.items()}
        return replace(data, prompts=prompts, quality=data.quality[rows], judged_again=again)
    first, second = [data.first[i] for i in rows], [data.second[i] for i in rows]
    return replace(data, prompts=prompts, first=first, second=second, outcome=data.outcome[rows])


def _named(data: Data) -> Sequence[str]:
    return data.models if isinstance(data, Judged) else (*data.first, *data.second)


def _within(data: Data, models: tuple[str, ...]) -> Data:
    """Only what is about `models`."""
    if isinstance(data, Judged):
        return as_judged(data, models)
    known = set(models)
    pairs = zip(data.first, data.second, strict=True)
    return part_of(data, np.array([a in known and b in known and a != b for a, b in pairs], dtype=np.bool_))


def labels_of(data: Data, models: tuple[str, ...]) -> dict[str, int]:
    """How many labels each model has."""
    quality: Floats = as_judged(data, models).quality
    return dict(zip(models, (~np.isnan(quality)).sum(axis=0).tolist(), strict=True))
