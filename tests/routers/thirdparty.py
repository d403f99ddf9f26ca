"""Routers and embedders as a user might bring them, good and broken."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class CountsQuestionMarks:
    """One column: question marks, scaled."""

    def __init__(self, scale: float = 1.0) -> None:
        self.models = ("any",)
        self._scale = scale

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[self._scale * prompt.count("?")] for prompt in prompts], dtype=np.float32).reshape(-1, 1)


class QualityOfThree:
    """One column per model, in an order of its own."""

    models = ("large", "small", "extra")

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.array([0.75, 0.5, 0.1], dtype=np.float32), (len(prompts), 1))


class NotFinite:
    """Scores that cannot be ranked."""

    models = ("any",)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.full((len(prompts), 1), np.nan, dtype=np.float32)


class WrongShape:
    """Forgets the column axis."""

    models = ("any",)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros(len(prompts), dtype=np.float32)


class Fails:
    """Scores nothing, and cannot be made where it is told so."""

    models = ("any",)

    def __init__(self, made: bool = True) -> None:
        if not made:
            raise KeyError("weights")

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        raise RuntimeError(f"no answer\nto {len(prompts)} prompts")


class Nameless:
    """Does not say what its columns mean."""

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(prompts), 1), dtype=np.float32)


class NoRouter:
    """Has no `score`."""

    models = ("any",)


def a_function() -> None:
    """Not a class."""


class CountsCharacters:
    """Embeds a text as how often it has each of these characters."""

    def __init__(self, characters: str = "ab") -> None:
        self._characters = characters

    def embed(self, texts: Sequence[str]) -> list[list[int]]:
        return [[text.count(one) for one in self._characters] for text in texts]


class Embeds:
    """Returns what it was made with, whatever the texts."""

    def __init__(self, returned: object) -> None:
        self._returned = returned

    def embed(self, texts: Sequence[str]) -> object:
        return self._returned


class EmbedsNothing:
    """Cannot embed."""

    def embed(self, texts: Sequence[str]) -> object:
        raise RuntimeError("out of\nmemory")
