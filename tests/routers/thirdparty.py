"""Routers and embedders as a user might write them, working and broken."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class CountsQuestionMarks:
    """A router with one column: the number of question marks, times `scale`."""

    def __init__(self, scale: float = 1.0) -> None:
        self.models = ("any",)
        self._scale = scale

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[self._scale * prompt.count("?")] for prompt in prompts], dtype=np.float32).reshape(-1, 1)


class QualityOfThree:
    """A router with one column per model, in an order of its own."""

    models = ("large", "small", "extra")

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.array([0.75, 0.5, 0.1], dtype=np.float32), (len(prompts), 1))


class NotFinite:
    """A router whose scores are NaN, so they cannot be ranked."""

    models = ("any",)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(prompts), 1), np.nan, dtype=np.float32)


class WrongShape:
    """A router whose scores lack the axis of columns."""

    models = ("any",)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros(len(prompts), dtype=np.float32)


class Fails:
    """A router whose `score` raises; with `made=False`, its constructor raises too."""

    models = ("any",)

    def __init__(self, made: bool = True) -> None:
        if not made:
            raise KeyError("weights")

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise RuntimeError(f"no answer\nto {len(prompts)} prompts")


class Nameless:
    """A router without `models`."""

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(prompts), 1), dtype=np.float32)


class NoRouter:
    """A class without `score`."""

    models = ("any",)


def a_function() -> None:
    """A function where a class is expected."""


class CountsCharacters:
    """An embedder that counts each of these characters in a text."""

    def __init__(self, characters: str = "ab") -> None:
        self._characters = characters

    def embed(self, texts: Sequence[str]) -> list[list[int]]:
        return [[text.count(one) for one in self._characters] for text in texts]


class Embeds:
    """An embedder that returns `returned`, whatever the texts."""

    def __init__(self, returned: object) -> None:
        self._returned = returned

    def embed(self, texts: Sequence[str]) -> object:
        return self._returned


class EmbedsNothing:
    """An embedder whose `embed` raises."""

    def embed(self, texts: Sequence[str]) -> object:
        raise RuntimeError("out of\nmemory")
