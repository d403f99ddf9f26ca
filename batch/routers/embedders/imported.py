"""An embedder of the user's own, named by its import path."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.user_code import call_failures, make_own
from schemas.embedders import ImportEmbedderSpec


class ImportedEmbedder:
    """Embeds by the user's class, and refuses what it returns unless it is one finite vector for each text."""

    def __init__(self, spec: ImportEmbedderSpec, *, dimension: int | None, key: str = "router.embedder") -> None:
        """Make the user's class.

        Args:
            dimension: numbers that each vector must have; `None`: as many as the first vectors have.
            key: what the user's file calls the embedder, for messages.

        Raises:
            SpecError: in one line, where the class cannot be imported or made.
        """
        self.dimension = dimension
        self._path = spec.path
        self._key = key
        self._embedder: Any = make_own(spec.path, spec.options, key, call="embed(texts)", is_no="embedder")

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return vectors of shape (len(texts), dimension). Raises SpecError where the user's class gives no such ones.

        The class is not called without texts.
        """
        if not texts:
            return np.empty((0, self.dimension or 0), dtype=np.float32)
        with call_failures(self._path, self._key, "embed"):
            returned = self._embedder.embed(list(texts))
        try:
            with np.errstate(over="ignore"):  # numbers beyond float32 become infinite, and are refused below
                vectors = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise self._refusal(f"no array of numbers: {error}") from error
        expected = f"({len(texts)}, {self.dimension or 'any'})"
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] != (self.dimension or vectors.shape[1]):
            raise self._refusal(f"the shape {vectors.shape}, not {expected}")
        if not vectors.shape[1] or not np.isfinite(vectors).all():
            raise self._refusal("a number that is not finite" if vectors.size else "vectors without numbers")
        self.dimension = vectors.shape[1]
        return vectors

    def _refusal(self, what: str) -> SpecError:
        return SpecError(f"{self._key}.path: {self._path}: `embed` returned {what}")
