"""The longer the prompt, the higher the score."""

from collections.abc import Sequence

import numpy as np

from batch.arrays import Float32s
from batch.routers.base import Router
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import LengthRouterSpec


class LengthRouter:
    """Scores `words / (words + midpoint)`: 0 for an empty prompt, one half at `midpoint`, towards 1 beyond.

    It needs no model and no training, and a trained router that does not beat it is not worth its time.
    """

    def __init__(self, strongest: str, midpoint: float) -> None:
        self.models: tuple[str, ...] = (strongest,)
        self._midpoint = midpoint

    def score(self, prompts: Sequence[str]) -> Float32s:
        words = np.fromiter((len(prompt.split()) for prompt in prompts), dtype=np.float64, count=len(prompts))
        return (words / (words + self._midpoint)).astype(np.float32).reshape(-1, 1)


def _build(spec: LengthRouterSpec, context: BuildContext) -> Router:
    return LengthRouter(context.strongest, spec.midpoint)


KIND = RouterKind(spec=LengthRouterSpec, build=_build, row_spec=LengthRouterSpec(kind="length"))
