"""Nearest neighbours: how well each model answered the judged prompts that are most like this one.

It takes any number of models, trains only three numbers, and profits from more data at once. The checkpoint keeps a
vector of every judged prompt, and each prompt is compared with all of them: for hundreds of thousands, `cluster` is
smaller and faster.
"""

from collections.abc import Sequence

from batch.arrays import Float32s
from batch.routers.base import Embedder
from batch.routers.checkpoints.format import Checkpoint, model_mixture
from batch.routers.estimators.neighbours import Neighbours, options_of
from batch.routers.on_vectors import kind_on_vectors
from schemas.routers import KnnRouterSpec


class KnnRouter:
    """Scores of shape (prompts, models): the weighted mean of each model's quality over a prompt's neighbours.

    A neighbour counts for the models whose answers to it were judged. Ties and rounding do not change scores, because
    weights fall to 0 at the last neighbour.
    """

    def __init__(self, models: tuple[str, ...], checkpoint: Checkpoint, embedder: Embedder) -> None:
        """`models` are the job's, cheapest first. Raises SpecError where the checkpoint does not know one of them."""
        self.models: tuple[str, ...] = models
        self._neighbours = Neighbours.of(checkpoint)
        self._options = options_of(checkpoint)
        self._mixture = model_mixture(models, checkpoint.config)
        self._embedder = embedder

    def score(self, prompts: Sequence[str]) -> Float32s:
        return self._neighbours.expected(self._embedder.embed(prompts), self._options) @ self._mixture


KIND = kind_on_vectors(KnnRouterSpec, KnnRouter)
