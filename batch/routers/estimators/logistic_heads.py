"""Logistic heads: logistic regressions from a prompt's vector to the probability that a model answers it well."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s
from batch.routers.checkpoints.format import Checkpoint, Tensors

# Prompts at a time: the similarities of 1,024 to 512 landmarks take 2 MB.
_ROWS = 1024


@dataclass(frozen=True)
class Landmarks:
    """Vectors of some training prompts; a prompt's features are its similarities to them (Nystrom's approximation).

    The similarity is `exp(-|x - landmark|^2)`, where `x` is `(vector - centre) * scale`, or
    `(vector - centre) @ projection`.
    """

    centre: Float32s
    """Shape (dimension,)."""
    scale: Float32s
    """Shape (dimension,), or that of a projection: (dimension, components)."""
    points: Float32s
    """Shape (landmarks, dimension or components), after centre and scale."""

    def similarity(self, vectors: Float32s) -> Float32s:
        """Return the similarity to each landmark, from 0 to 1, shape (len(vectors), landmarks)."""
        found = np.empty((len(vectors), len(self.points)), dtype=np.float32)
        lengths = (self.points**2).sum(axis=1)
        for start in range(0, len(vectors), _ROWS):
            placed = self.placed(vectors[start : start + _ROWS])
            apart = (placed**2).sum(axis=1, keepdims=True) + lengths - 2.0 * (placed @ self.points.T)
            np.exp(-np.maximum(apart, 0.0), out=found[start : start + _ROWS])
        return found

    def placed(self, vectors: Float32s) -> Float32s:
        """Return the vectors in the coordinates of the landmarks, shape (len(vectors), dimension or components)."""
        centred: Float32s = vectors - self.centre
        if self.scale.ndim == 2:
            return centred @ self.scale
        scaled: Float32s = centred * self.scale
        return scaled


@dataclass(frozen=True)
class Heads:
    """One logistic head per model: `sigmoid(features @ weight.T + bias)` is the probability of a good answer.

    The features of a prompt are its vector or, with landmarks, its similarities to them.
    """

    weight: Float32s
    """Shape (models, features)."""
    bias: Float32s
    """Shape (models,)."""
    landmarks: Landmarks | None = None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Heads":
        """Read them from a checkpoint. Raises SpecError if it does not hold one for each of its models."""
        models, dimension = len(checkpoint.config.models), checkpoint.config.encoder.dimension
        near = None
        if "landmarks" in checkpoint.tensors:
            if "projection" in checkpoint.tensors:
                scale = checkpoint.tensor("projection", dimension, None)
            else:
                scale = checkpoint.tensor("scale", dimension)
            points = checkpoint.tensor("landmarks", None, scale.shape[-1])
            near = Landmarks(checkpoint.tensor("centre", dimension), scale, points)
        weight = checkpoint.tensor("weight", models, dimension if near is None else len(near.points))
        return cls(weight, checkpoint.tensor("bias", models), near)

    def tensors(self) -> Tensors:
        """The tensors of a checkpoint; landmarks are stored as float16, so they must be exact in it."""
        linear = {"weight": self.weight, "bias": self.bias}
        if self.landmarks is None:
            return linear
        near = self.landmarks
        points = near.points.astype(np.float16)
        placing = "scale" if near.scale.ndim == 1 else "projection"
        return linear | {"landmarks": points, "centre": near.centre, placing: near.scale}

    def logits(self, vectors: Float32s) -> Float32s:
        """Return log odds of a good answer, shape (len(vectors), models)."""
        features = vectors if self.landmarks is None else self.landmarks.similarity(vectors)
        return features @ self.weight.T + self.bias


def probabilities(logits: NDArray[np.floating[Any]]) -> Float32s:
    """Return the probabilities that have these log odds."""
    # float64: exp of a float32 overflows at 89 already, and the sum of both steps is what is rounded.
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
