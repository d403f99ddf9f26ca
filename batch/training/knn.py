"""Trains nearest neighbours: stores the judged prompts, and chooses how neighbours count on held-out prompts.

Options are chosen by log loss, which needs no pair of models and no quality gap between them. On layer 2 of the
packaged encoder the same options are best by log loss and by APGR, and options near them are almost as good.
"""

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Floats, Indices
from batch.errors import InputError
from batch.routers.base import Embedder
from batch.routers.estimators.cosine_search import directions, nearest, tapered
from batch.routers.estimators.neighbours import NeighbourOptions, Neighbours
from batch.training.data import Judged, Trained, choose_validation, quality_together
from batch.training.kind import FitRequest, VectorTrainer

NEIGHBOURS = (16, 32, 64, 128, 256, 512)
TEMPERATURES = (0.05, 0.1, 0.2, 0.5)
SHRINKAGES = (0.3, 1.0, 3.0, 10.0)

# More held-out prompts are not needed to tell options apart, and each is compared with all stored ones.
_MOST_HELD_OUT = 5000
# Predicted probabilities are clipped to this, so that one answer unlike all its neighbours' does not decide the loss.
_LEAST_PROBABILITY = 1e-6


def fit_knn(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """Store every prompt's vector and its judged answers; choose options by log loss on prompts held out.

    Deterministic but for the embedder. The seed decides which prompts are held out while options are chosen; after
    that they are stored as well.

    Args:
        data: sets with the same models.
        validation: share of the prompts held out.

    Raises:
        InputError: the sets have different models, a model has no judged answer, or prompts are too few to hold out.
    """
    prompts, quality = prompts_and_quality(data)
    vectors = embedder.embed(prompts)
    kept, held = kept_and_held(prompts, quality, seed, validation)
    trial = neighbours_of_prompts(vectors[kept], quality[kept])
    options, loss = choose_options(trial, NEIGHBOURS, vectors[held], quality[held])
    stored = neighbours_of_prompts(vectors, quality)
    return Trained(
        stored.tensors(), options.model_dump(), {**options.model_dump(), "validation_log_loss": round(loss, 4)}
    )


def prompts_and_quality(data: Sequence[Judged]) -> tuple[list[str], Floats]:
    """All prompts and the quality of each model's answers, shape (prompts, models). Raises InputError as `fit_knn`."""
    quality = quality_together(data, "nearest neighbours and clusters")
    return [prompt for one in data for prompt in one.prompts], quality


def kept_and_held(prompts: Sequence[str], quality: Floats, seed: int, validation: float) -> tuple[Indices, Indices]:
    """Numbers of the judged prompts to learn from, and of those that are held out; equal prompts stay together.

    Raises:
        InputError: too few have judged answers.
    """
    # Not the seed itself: whoever dealt before with the same one has taken those prompts away.
    held = choose_validation(prompts, validation, ~seed)
    judged = ~np.isnan(quality).all(axis=1)
    kept, out = np.flatnonzero(~held & judged), np.flatnonzero(held & judged)[:_MOST_HELD_OUT]
    if not len(out) or not len(kept) or np.isnan(quality[kept]).all(axis=0).any():
        raise InputError(
            f"data: {judged.sum()} judged prompts are too few to hold out {validation:g} of them; add more"
        )
    return kept, out


def neighbours_of_prompts(vectors: Float32s, quality: Floats) -> Neighbours:
    """Make each prompt a neighbour; prompts with the same vector share one, or copies would crowd out all others."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    stored = directions(vectors, mean).astype(np.float16)
    _, first, place = np.unique(stored.view(f"V{stored.shape[1] * 2}"), return_index=True, return_inverse=True)
    return pool_by_place(mean, stored[first], place.ravel(), quality)


def pool_by_place(mean: Float32s, vectors: NDArray[np.floating], place: Indices, quality: Floats) -> Neighbours:
    """Sum up the judged answers of the prompts at each place.

    Args:
        mean: of all prompts' vectors, shape (dimension,).
        vectors: of the places, shape (places, dimension).
        place: number of each prompt's place, shape (prompts,).
        quality: shape (prompts, models).
    """
    count = len(vectors)
    there = ~np.isnan(quality)
    known = np.where(there, quality, 0.0)
    judged = np.stack([np.bincount(place, column, count) for column in there.T.astype(float)], axis=1)
    total = np.stack([np.bincount(place, column, count) for column in known.T], axis=1)
    return Neighbours(
        mean,
        vectors,
        (total / np.maximum(judged, 1.0)).astype(np.float32),
        judged.astype(np.float32),
        (total.sum(axis=0) / judged.sum(axis=0)).astype(np.float32),
    )


def choose_options(
    trial: Neighbours, neighbours: Sequence[int], vectors: Float32s, quality: Floats
) -> tuple[NeighbourOptions, float]:
    """Return the options with the least log loss on prompts that `trial` does not hold, and that loss.

    Args:
        neighbours: counts to try; those above the number of places are all the same and tried once.
        vectors: of the prompts held out, shape (prompts, dimension).
        quality: of their answers, shape (prompts, models).
    """
    counts = sorted({min(count, len(trial.vectors)) for count in neighbours})
    tried = list(product(counts, TEMPERATURES))
    losses = np.zeros((len(tried), len(SHRINKAGES)))
    asked = directions(vectors, trial.mean)
    for rows, similarity, places in nearest(asked, trial.vectors, counts[-1] + 1):
        for row, (count, temperature) in enumerate(tried):
            weights = tapered(similarity[:, : count + 1], count, temperature)
            for column, expected in enumerate(_shrunk(trial, weights, places[:, : weights.shape[1]])):
                losses[row, column] += _log_loss(expected, quality[rows])
    row, column = divmod(int(np.argmin(losses)), len(SHRINKAGES))
    count, temperature = tried[row]
    options = NeighbourOptions(neighbours=count, temperature=temperature, shrinkage=SHRINKAGES[column])
    return options, float(losses[row, column] / np.count_nonzero(~np.isnan(quality)))


def _shrunk(trial: Neighbours, weights: Float32s, places: Indices) -> Iterator[Float32s]:
    """The expected quality for each of SHRINKAGES."""
    total, judged = trial.totals(weights, places)
    for shrinkage in SHRINKAGES:
        yield trial.shrunk(total, judged, shrinkage)


def _log_loss(expected: Float32s, quality: Floats) -> float:
    """Summed over the judged answers."""
    likely = np.clip(expected.astype(np.float64), _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    return -float(np.nansum(quality * np.log(likely) + (1.0 - quality) * np.log1p(-likely)))


def _fit(asked: FitRequest) -> Trained:
    return fit_knn(asked.judged(), asked.embedder, asked.seed, asked.validation)


TRAINER = VectorTrainer(
    kind="knn",
    card="For each model, how well it answered the most similar prompts among those that were labelled.",
    fit=_fit,
)
