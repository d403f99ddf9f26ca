"""A model's quality on a prompt, expected from how well it answered what is like the prompt."""

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
    """Most of them that are looked at."""
    temperature: float = Field(gt=0)
    """The cosine by which a neighbour must be nearer to weigh e times as much."""
    shrinkage: float = Field(gt=0)
    """What a model's usual quality weighs, in judged answers of the nearest."""


@dataclass(frozen=True)
class Neighbours:
    """What was judged, by place: single prompts, or clusters of them."""

    mean: Float32s
    """Shape (dimension,): the middle of the prompts' vectors."""
    vectors: NDArray[np.floating]
    """Shape (places, dimension), of length one; float16 in a checkpoint."""
    quality: Float32s
    """Shape (places, models): the mean quality of the answers judged there; 0 where there is none."""
    judged: Float32s
    """Shape (places, models): how many there are."""
    usual: Float32s
    """Shape (models,): each model's mean quality over all."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Neighbours":
        """Those of a checkpoint. Raises SpecError where it does not hold them all."""
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

        It is the mean over the judged answers of the neighbours, weighed by `tapered`, and of the usual quality with
        the weight `shrinkage`; so a few answers far away do not say much.
        """
        found = np.empty((len(vectors), len(self.usual)), np.float32)
        for rows, similarity, places in nearest(directions(vectors, self.mean), self.vectors, options.neighbours + 1):
            weights = tapered(similarity, options.neighbours, options.temperature)
            total, judged = self.totals(weights, places[:, : weights.shape[1]])
            found[rows] = self.shrunk(total, judged, options.shrinkage)
        return found

    def totals(self, weights: Float32s, places: Indices) -> tuple[Float32s, Float32s]:
        """Weighed sums of quality and of judged answers, shape (prompts, models) both.

        `weights` and `places` have the shape (prompts, neighbours).
        """
        counted = weights[:, :, None] * self.judged[places]
        return (counted * self.quality[places]).sum(axis=1), counted.sum(axis=1)

    def shrunk(self, total: Float32s, judged: Float32s, shrinkage: float) -> Float32s:
        """The mean of these sums and the usual quality."""
        weight = np.float32(shrinkage)
        expected: Float32s = (total + weight * self.usual) / (judged + weight)
        return expected


def options_of(checkpoint: Checkpoint) -> NeighbourOptions:
    """How a checkpoint's neighbours count. Raises SpecError where it does not say."""
    try:
        return NeighbourOptions.model_validate(dict(checkpoint.config.options))
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, ("options", *fault["loc"])))
        raise SpecError(f"router.checkpoint: {CONFIG}: {where}: {fault['msg']}") from error
