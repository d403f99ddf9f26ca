"""The default router: for each model, the probability that it answers well.

One logistic head per model carries over to any number of models, where a router trained on pairs does not,
and its scores mean something by themselves: quality floors and budgets can be planned with them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.base import Embedder
from batch.routers.checkpoint import Checkpoint, CheckpointConfig


class CorrectnessRouter:
    """Scores of shape (prompts, models): the probability that each of the job's models answers well."""

    def __init__(self, models: tuple[str, ...], checkpoint: Checkpoint, embedder: Embedder) -> None:
        """`models` are the job's, cheapest first. Raises SpecError where the checkpoint does not know one of them."""
        self.models: tuple[str, ...] = models
        self._heads = checkpoint.heads
        self._mixture = head_mixture(models, checkpoint.config)
        self._embedder = embedder

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        logits = self._heads.logits(self._embedder.embed(prompts)) @ self._mixture
        # float64: exp of a float32 overflows at 89 already, and the sum of both steps is what is rounded.
        probabilities = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
        return probabilities.astype(np.float32)


def head_mixture(models: tuple[str, ...], config: CheckpointConfig) -> NDArray[np.float32]:
    """Return the share each head has in each model's log odds, shape (heads, models).

    A checkpoint matched by name gives every model its own head. One matched by position gives the cheapest
    model the first head and the strongest the last. Models in between lie on the straight line between the
    two, by position: a stopgap that keeps their order until a checkpoint is trained on them.
    Raises SpecError for a model that a checkpoint matched by name was not trained on.
    """
    mixture = np.zeros((len(config.heads), len(models)), dtype=np.float32)
    if config.matched_by == "name":
        for column, model in enumerate(models):
            if model not in config.heads:
                known = ", ".join(config.heads)
                raise SpecError(f"router.checkpoint: it was trained on {known}; {model!r} is not among them")
            mixture[config.heads.index(model), column] = 1.0
        return mixture
    towards_strong = np.linspace(0.0, 1.0, len(models)) if len(models) > 1 else np.ones(1)
    mixture[-1] = towards_strong
    mixture[0] = 1.0 - towards_strong
    return mixture
