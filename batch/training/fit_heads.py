"""Fits logistic heads on sets of vectors, in one of three forms.

- `linear`: the features are the vectors themselves.
- `landmarks`: the features are a prompt's similarities to some training prompts (Nystrom's approximation of a kernel).
- `components`: as `landmarks`, after the vectors are projected to the directions that matter to the models' quality.

Each set of prompts gets an intercept of its own, because models do better on one benchmark than on another. Without it
the weights mostly learn to tell benchmarks apart: the cross-validated APGR of GSM8K, trained together with MMLU, is
.603 without and .651 with it (mean of two assignments to folds; MMLU .659 and .661). The finished heads have one
intercept, the mean over the labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Floats, Int64s
from batch.routers.estimators.logistic_heads import Heads, Landmarks
from batch.training.logistic_regression import fit_logistic

# `components` ranks prompts like those trained on better than `landmarks` does, and other prompts worse. APGR: trained
# on 1,531 labels of MMLU and measured on the rest of it, .663 against .644; trained on MMLU and GSM8K and measured on
# MT-Bench's 42 prompts, .46 against .67.
Form = Literal["linear", "landmarks", "components"]

# Penalties that are tried: `penalty / 2` times the squared weights is added to the summed log loss. For `linear` the
# features are standardised vectors; the best penalty is near 5,000 for 7,600 prompts, and the loss is flat around it;
# far below, the heads learn single prompts by heart. For the others the features are similarities made orthonormal.
PENALTIES: dict[Form, tuple[float, ...]] = {
    "linear": (500.0, 1000.0, 2000.0, 5000.0, 10_000.0),
    "landmarks": (1.0, 3.0, 10.0),
    "components": (1.0, 3.0, 10.0),
}

# Most landmarks; 1,024 give the same quality.
LANDMARKS = 512
# How fast similarity falls: vectors are scaled so that their mean squared length, after centring, is this. The squared
# distance of two random prompts is then about 2.
_WIDTH = 1.0
# Principal components along which similarity is measured; 32, 128 and all of them give the same quality.
COMPONENTS = 64
# Each component's scores are multiplied by its variance to this power, so that components that vary more count more.
_EMPHASIS = 0.25
# Penalty of the first heads, which only serve to find how much each component matters.
_FIRST_PENALTY = 3.0
# Added to the diagonal of the landmarks' similarities to each other: two equal landmarks would make it singular.
_RIDGE = 1e-4

# Penalty of intercepts: just enough to keep the intercept of a set finite in which all labels are equal.
_INTERCEPT_PENALTY = 1e-3


@dataclass(frozen=True)
class Training:
    """One set of prompts to fit heads on."""

    vectors: Floats
    """Shape (prompts, dimension)."""
    quality: Floats
    """Of each model's answer, from 0 to 1, shape (prompts, models); NaN where there is no label."""
    rank: Int64s
    """Random number of each prompt, shape (prompts,): the prompts with the lowest over all sets become landmarks; equal
    prompts have equal numbers."""

    def rows(self, kept: NDArray[np.bool_]) -> "Training":
        """Only these prompts."""
        return Training(self.vectors[kept], self.quality[kept], self.rank[kept])


@dataclass(frozen=True)
class SetHeads:
    """Heads with an intercept for each set of prompts that they were trained on."""

    weight: Floats
    """Shape (models, features)."""
    intercepts: Floats
    """Shape (models, sets)."""
    labels: Floats
    """Number of labels of each model in each set, shape (models, sets)."""
    landmarks: Landmarks | None = None

    def heads(self) -> Heads:
        """The heads for prompts of any origin: their intercept is the mean of the sets', weighted by labels."""
        bias = (self.intercepts * self.labels).sum(axis=1) / self.labels.sum(axis=1)
        return Heads(self.weight.astype(np.float32), bias.astype(np.float32), self.landmarks)

    def logits(self, vectors: Floats, one: int) -> Floats:
        """Log odds of a good answer for prompts of set number `one`, shape (len(vectors), models)."""
        near = self.landmarks
        features = vectors if near is None else near.similarity(vectors.astype(np.float32))
        return features @ self.weight.T + self.intercepts[:, one]


def fit_heads(sets: Sequence[Training], form: Form, penalties: Sequence[float]) -> Iterator[SetHeads]:
    """Fit one head per model on all sets, for each penalty in turn; each model needs a label."""
    vectors = np.concatenate([one.vectors for one in sets])
    mean, spread = vectors.mean(axis=0), vectors.std(axis=0)
    spread[spread == 0.0] = 1.0
    if form == "linear":
        for weight, intercepts, labels in _fits((vectors - mean) / spread, sets, penalties):
            raw = weight / spread
            yield SetHeads(raw, intercepts - (raw @ mean)[:, None], labels)
        return
    rank = np.concatenate([one.rank for one in sets])
    near = _landmarks(vectors, mean, 1.0 / spread, rank)
    if form == "components":
        projection = _principal((vectors - mean) / spread) / spread[:, None]
        near = _landmarks(vectors, mean, projection, rank)
        features, orthonormal = _orthonormal(near, vectors)
        weight = next(_fits(features, sets, [_FIRST_PENALTY]))[0] @ orthonormal.T
        near = _landmarks(vectors, mean, projection * np.sqrt(_slopes(near, vectors, weight)), rank)
    features, orthonormal = _orthonormal(near, vectors)
    for weight, intercepts, labels in _fits(features, sets, penalties):
        yield SetHeads(weight @ orthonormal.T, intercepts, labels, near)


def _principal(standardised: Floats) -> Floats:
    """The principal components of the vectors, weighted by `_EMPHASIS`, in columns; shape (dimension, components)."""
    variance, directions = np.linalg.eigh(standardised.T @ standardised / len(standardised))
    most = np.argsort(-variance)[:COMPONENTS]
    emphasised: Floats = directions[:, most] * np.maximum(variance[most], 0.0) ** _EMPHASIS
    return emphasised


def _slopes(near: Landmarks, vectors: Floats, weight: Floats) -> Floats:
    """Slope of the heads along each component: root mean square over prompts and models, shape (components,).

    Scaling the components by it brings prompts closer together that differ only in what changes no model's quality. The
    squares are the diagonal of the average gradient outer product (Radhakrishnan et al., Science 383, 2024); their
    square root changes the scale less, which suits few labels.
    """
    near_to, placed = near.similarity(vectors.astype(np.float32)), near.placed(vectors.astype(np.float32))
    squares = np.zeros(near.points.shape[1])
    for one in weight:
        pull = near_to * one.astype(np.float32)
        squares += ((pull.sum(axis=1, keepdims=True) * placed - pull @ near.points) ** 2).mean(axis=0)
    return np.sqrt(squares) if squares.any() else np.ones_like(squares)


def _landmarks(vectors: Floats, mean: Floats, scale: Floats, rank: Int64s) -> Landmarks:
    """Choose landmarks, and scale similarity by `_WIDTH`; of `scale` only the proportions matter."""
    centre, none = mean.astype(np.float32), np.empty((0, scale.shape[-1]), np.float32)
    length = (Landmarks(centre, scale.astype(np.float32), none).placed(vectors.astype(np.float32)) ** 2).sum(1).mean()
    near = Landmarks(centre, (scale * np.sqrt(_WIDTH / (length or 1.0))).astype(np.float32), none)
    _, first = np.unique(rank, return_index=True)
    points = near.placed(vectors[first[:LANDMARKS]].astype(np.float32))
    # Rounded to float16, as they are stored, so that measurements are of the heads that ship.
    return replace(near, points=points.astype(np.float16).astype(np.float32))


def _orthonormal(near: Landmarks, vectors: Floats) -> tuple[Floats, Floats]:
    """The prompts' similarities to the landmarks, made orthonormal, shape (prompts, landmarks), and the matrix of shape
    (landmarks, landmarks) that similarities are multiplied by for that."""
    apart = ((near.points[:, None] - near.points[None]) ** 2).sum(axis=2)
    lower = np.linalg.cholesky(np.exp(-apart.astype(np.float64)) + _RIDGE * np.eye(len(apart)))
    orthonormal = np.linalg.inv(lower).T
    return near.similarity(vectors.astype(np.float32)).astype(np.float64) @ orthonormal, orthonormal


def _fits(
    features: Floats, sets: Sequence[Training], penalties: Sequence[float]
) -> Iterator[tuple[Floats, Floats, Floats]]:
    """Weights (models, features), intercepts and numbers of labels (models, sets), for each penalty."""
    labels = np.concatenate([one.quality for one in sets])
    own_intercept = np.repeat(np.eye(len(sets)), [len(one.vectors) for one in sets], axis=0)
    counts = np.stack([own_intercept[~np.isnan(column)].sum(axis=0) for column in labels.T])
    width = features.shape[1]
    whole = np.hstack([features, own_intercept])
    fitted: list[Floats | None] = [None] * labels.shape[1]
    for penalty in penalties:
        of_each = np.concatenate([np.full(width, penalty), np.full(len(sets), _INTERCEPT_PENALTY)])
        for model, column in enumerate(labels.T):
            there = ~np.isnan(column)
            known = whole if there.all() else whole[there]
            # From the coefficients of the penalty before, which are near.
            fitted[model] = fit_logistic(known, column[there], of_each, fitted[model])
        coefficients = np.stack([one for one in fitted if one is not None])
        yield coefficients[:, :width], coefficients[:, width:], counts
