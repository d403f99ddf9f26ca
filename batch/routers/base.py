"""The protocols of routers, which score prompts, and of embedders, which turn texts into vectors."""

from collections.abc import Sequence
from typing import Protocol

from batch.arrays import Float32s


class Router(Protocol):
    """Scores prompts.

    `models` names the columns of the scores. With one column per model, each holds the predicted quality of that
    model's answer, a probability. A pair router has one column: how likely the strongest model's answer wins.
    """

    models: tuple[str, ...]

    def score(self, prompts: Sequence[str]) -> Float32s:
        """Return scores of shape `(len(prompts), len(models))`, rows in the order of `prompts`.

        A prompt's scores depend on that prompt alone: not on its neighbours, the clock or earlier calls. One thread
        calls at a time.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors."""

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return vectors of shape `(len(texts), dimension)`, in the order of `texts`."""
        ...
