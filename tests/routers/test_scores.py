"""Routers score a bounded number of prompts at a time, and `ranking_scores` makes one number of a prompt's scores."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.routers import scores as calling
from batch.routers.scores import ranking_scores, scores_of


class Remembers:
    """Scores a text by its length, and records how many texts each call had."""

    def __init__(self) -> None:
        self.models: tuple[str, ...] = ("any",)
        self.given: list[int] = []

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        self.given.append(len(prompts))
        return np.array([[len(prompt)] for prompt in prompts], dtype=np.float32).reshape(-1, 1)


@pytest.mark.parametrize(("count", "given"), [(0, [0]), (4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_many_texts_are_asked_for_in_turn(count: int, given: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many texts there are, the router gets a few at a time, and scores keep the order of the texts."""
    monkeypatch.setattr(calling, "_AT_ONCE", 4)
    router = Remembers()
    scores = scores_of(router, "own", ["x" * i for i in range(count)])
    assert router.given == given
    assert scores[:, 0].tolist() == list(range(count))


def test_rows_are_ranked_by_one_number() -> None:
    """A pair router's column is the rank; else it is the strongest model's column less the cheapest's."""
    pair, several = np.array([[0.5], [0.25]]), np.array([[0.75, 0.0, 0.5], [0.25, 1.0, 0.5]], dtype=np.float32)
    assert ranking_scores(pair, ("large",), ("small", "large")).tolist() == [0.5, 0.25]
    found = ranking_scores(several, ("large", "middle", "small"), ("small", "middle", "large"))
    assert found.tolist() == [0.25, -0.25]
    assert found.dtype == np.float32
