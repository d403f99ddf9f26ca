"""Logistic heads: what turns a prompt's vector into the probability that a model answers it well."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batch.routers.checkpoint import Checkpoint, Tensors


@dataclass(frozen=True)
class Heads:
    """One logistic head per model: `sigmoid(vectors @ weight.T + bias)` is the probability of a good answer."""

    weight: NDArray[np.float32]
    """Shape (models, dimension)."""
    bias: NDArray[np.float32]
    """Shape (models,)."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Heads":
        """Those of a checkpoint. Raises SpecError where it does not hold one for each of its models."""
        models = len(checkpoint.config.models)
        return cls(
            checkpoint.tensor("weight", models, checkpoint.config.encoder.dimension), checkpoint.tensor("bias", models)
        )

    def tensors(self) -> Tensors:
        """As a checkpoint stores them."""
        return {"weight": self.weight, "bias": self.bias}

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log odds of a good answer, shape (len(vectors), models)."""
        return vectors @ self.weight.T + self.bias


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities that have these log odds."""
    # float64: exp of a float32 overflows at 89 already, and the sum of both steps is what is rounded.
    return (1.0 / (1.0 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
