"""The expected quality of a model's answer to a prompt: from judged answers to the prompt's nearest neighbours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from batch.arrays import Float32s, Indices
from batch.errors import SpecError
from batch.routers.checkpoints.format import CONFIG, Checkpoint, Tensors
from batch.routers.estimators.cosine_search import directions, nearest, tapered
from schemas.base import Spec


class NeighbourOptions(Spec):
    """How neighbours count."""

    neighbours: int = Field(gt=0)
    """Most neighbours that count."""
    temperature: float = Field(gt=0)
    """A neighbour whose cosine is larger by this weighs e times as much."""
    shrinkage: float = Field(gt=0)
    """Weight of a model's usual quality, in judged answers of the nearest neighbour."""


@dataclass(frozen=True)
class Neighbours:
    """Judged answers, summed up by place: a place is a single prompt or a cluster of prompts."""

    mean: Float32s
    """Mean of the prompts' vectors, shape (dimension,); it is subtracted before vectors are compared."""
    vectors: NDArray[np.floating]
    """Shape (places, dimension), of length one; float16 in a checkpoint."""
    quality: Float32s
    """Mean quality of the answers judged at each place, from 0 to 1, shape (places, models); 0 if there is none."""
    judged: Float32s
    """Number of answers judged at each place, shape (places, models)."""
    usual: Float32s
    """Shape (models,): each model's mean quality over all."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Neighbours":
        """Read them from a checkpoint. Raises SpecError if a tensor is missing."""
        models, dimension = len(checkpoint.config.models), checkpoint.config.encoder.dimension
        vectors = checkpoint.stored("vectors", None, dimension)
        if not len(vectors):
            raise SpecError("router.checkpoint: it holds no vectors, so nothing can be near")
        return cls(
            checkpoint.tensor("mean", dimension),
            vectors,
            checkpoint.tensor("quality", len(vectors), models),
            checkpoint.tensor("judged", len(vectors), models),
            checkpoint.tensor("usual", models),
        )

    def tensors(self) -> Tensors:
        """As a checkpoint stores them."""
        return {
            "mean": self.mean,
            "vectors": self.vectors.astype(np.float16),
            "quality": self.quality,
            "judged": self.judged,
            "usual": self.usual,
        }

    def expected(self, vectors: Float32s, options: NeighbourOptions) -> Float32s:
        """Return the quality to expect of each model, shape (len(vectors), models).

        It is a weighted mean over the neighbours' judged answers, with weights by `tapered`, and the model's usual
        quality with the weight `shrinkage`. So a few answers to distant prompts change little.
        """
        found = np.empty((len(vectors), len(self.usual)), np.float32)
        for rows, similarity, places in nearest(directions(vectors, self.mean), self.vectors, options.neighbours + 1):
            weights = tapered(similarity, options.neighbours, options.temperature)
            total, judged = self.totals(weights, places[:, : weights.shape[1]])
            found[rows] = self.shrunk(total, judged, options.shrinkage)
        return found

    def totals(self, weights: Float32s, places: Indices) -> tuple[Float32s, Float32s]:
        """Weighted sums of quality and of numbers of judged answers, both of shape (prompts, models).

        `weights` and `places` have the shape (prompts, neighbours).
        """
        counted = weights[:, :, None] * self.judged[places]
        return (counted * self.quality[places]).sum(axis=1), counted.sum(axis=1)

    def shrunk(self, total: Float32s, judged: Float32s, shrinkage: float) -> Float32s:
        """The weighted mean of these sums and the usual quality, shape (prompts, models)."""
        weight = np.float32(shrinkage)
        expected: Float32s = (total + weight * self.usual) / (judged + weight)
        return expected


def options_of(checkpoint: Checkpoint) -> NeighbourOptions:
    """Read how a checkpoint's neighbours count. Raises SpecError if its options are missing or wrong."""
    try:
        return NeighbourOptions.model_validate(dict(checkpoint.config.options))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("options", *fault["loc"])))
        raise SpecError(f"router.checkpoint: {CONFIG}: {where}: {fault['msg']}") from error
