"""The default router: for each model, the probability that it answers well.

One logistic head per model works for any number of models, where a router trained on pairs works for one pair. Its
scores are probabilities, so plans can use them for quality floors and budgets.
"""

from collections.abc import Sequence

from batch.arrays import Float32s
from batch.routers.base import Embedder
from batch.routers.checkpoints.format import Checkpoint, model_mixture
from batch.routers.estimators.logistic_heads import Heads, probabilities
from batch.routers.estimators.word_weights import word_logits
from batch.routers.on_vectors import kind_on_vectors
from schemas.routers import CorrectnessRouterSpec


class CorrectnessRouter:
    """Scores of shape (prompts, models): the probability that each of the job's models answers well."""

    def __init__(self, models: tuple[str, ...], checkpoint: Checkpoint, embedder: Embedder) -> None:
        """`models` are the job's, cheapest first.

        Raises SpecError where the checkpoint does not know one of them, or the words that it has weights for.
        """
        self.models: tuple[str, ...] = models
        self._heads = Heads.of(checkpoint)
        self._mixture = model_mixture(models, checkpoint.config)
        self._embedder = embedder
        self._words = word_logits(checkpoint, self._mixture)

    def score(self, prompts: Sequence[str]) -> Float32s:
        logits = self._heads.logits(self._embedder.embed(prompts)) @ self._mixture
        return probabilities(logits if self._words is None else logits + self._words.embed(prompts))


KIND = kind_on_vectors(CorrectnessRouterSpec, CorrectnessRouter, int8=True, row_spec=CorrectnessRouterSpec())
