"""The same score for every prompt."""

from collections.abc import Sequence

import numpy as np

from batch.arrays import Float32s
from batch.routers.base import Router
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import ConstantRouterSpec


class ConstantRouter:
    """Scores every prompt `value`; under a share plan, the first rows of the input go to the strongest model."""

    def __init__(self, strongest: str, value: float) -> None:
        self.models: tuple[str, ...] = (strongest,)
        self._value = value

    def score(self, prompts: Sequence[str]) -> Float32s:
        return np.full((len(prompts), 1), self._value, dtype=np.float32)


def _build(spec: ConstantRouterSpec, context: BuildContext) -> Router:
    return ConstantRouter(context.strongest, spec.value)


KIND = RouterKind(spec=ConstantRouterSpec, build=_build, row_spec=ConstantRouterSpec(kind="constant"))
