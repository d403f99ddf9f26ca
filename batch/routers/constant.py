"""The same score for every prompt."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class ConstantRouter:
    """Scores every prompt `value`; under a share plan, the first rows of the input go to the strongest model."""

    def __init__(self, strongest: str, value: float) -> None:
        self.models: tuple[str, ...] = (strongest,)
        self._value = value

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(prompts), 1), self._value, dtype=np.float32)
