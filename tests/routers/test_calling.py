"""Routers are asked for a bounded number of scores at a time."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.routers import calling
from batch.routers.calling import scores_of


class Remembers:
    """Scores a text by its length, and remembers how many it was given."""

    def __init__(self) -> None:
        self.models: tuple[str, ...] = ("any",)
        self.given: list[int] = []

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.given.append(len(prompts))
        return np.array([[len(prompt)] for prompt in prompts], dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize(("count", "given"), [(0, [0]), (4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_many_texts_are_asked_for_in_turn(count: int, given: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are, a router sees a few at a time, and scores come in the order of the texts."""
    monkeypatch.setattr(calling, "_AT_ONCE", 4)
    router = Remembers()
    scores = scores_of(router, "own", ["x" * i for i in range(count)])
    assert router.given == given
    assert scores[:, 0].tolist() == list(range(count))
