"""A random score for each prompt: the baseline of every comparison."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from batch.arrays import Float32s
from batch.routers.base import Router
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import RandomRouterSpec

# A float32 in [0, 1) holds 24 bits exactly; one more, and the largest values round up to 1.
_BITS = 24


class RandomRouter:
    """Scores uniform on [0, 1), drawn from the prompt's own hash: the same whatever batch it comes in.

    Equal prompts get equal scores, and another seed changes all scores.
    """

    def __init__(self, strongest: str, seed: int) -> None:
        self.models: tuple[str, ...] = (strongest,)
        self._key = blake2b(str(seed).encode()).digest()

    def score(self, prompts: Sequence[str]) -> Float32s:
        drawn = (blake2b(prompt.encode(), digest_size=_BITS // 8, key=self._key).digest() for prompt in prompts)
        scores = np.fromiter((int.from_bytes(d) for d in drawn), dtype=np.float32, count=len(prompts))
        return (scores / np.float32(2**_BITS)).reshape(-1, 1)


def _build(spec: RandomRouterSpec, context: BuildContext) -> Router:
    return RandomRouter(context.strongest, context.seed)


KIND = RouterKind(spec=RandomRouterSpec, build=_build, row_spec=RandomRouterSpec(kind="random"))
