"""Means over a prompt's tokens of one row per token, without a transformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.embedder import WEIGHTS
from batch.routers.word_tokens import WordTokens

# Prompts looked up at once, and numbers: 64 MB in training, where rows are whole vectors.
_CHUNK = 1024
_MOST_NUMBERS = 1 << 24

Rows = NDArray[np.float32]


class TokenMeans:
    """An embedder: the mean of a table's rows over a prompt's first `max_tokens` tokens, marks included.

    Exact for tokenizers that do as uncased BERT's does, which the packaged encoder's is.
    """

    def __init__(self, folder: Path, table: Rows, max_tokens: int) -> None:
        """Load the tokenizer of the encoder in `folder`.

        Args:
            table: a row for each of its tokens, shape (tokens, width).

        Raises:
            SpecError: the folder holds no tokenizer.
        """
        self._tokens = WordTokens(folder, max_tokens, "router.checkpoint")
        self._table = table
        self.dimension = int(table.shape[1])
        self._chunk = max(min(_CHUNK, _MOST_NUMBERS // (max_tokens * self.dimension)), 1)

    def embed(self, texts: Sequence[str]) -> Rows:
        """Return means of shape `(len(texts), dimension)`, in the order of `texts`."""
        means = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), self._chunk):
            chunk = texts[start : start + self._chunk]
            means[start : start + len(chunk)] = self._means(chunk)
        return means

    def _means(self, texts: Sequence[str]) -> Rows:
        tokens, lengths = self._tokens(texts)
        sums = np.add.reduceat(self._table[tokens], np.cumsum(lengths) - lengths, axis=0)
        means: Rows = (sums / lengths[:, None]).astype(np.float32)
        return means


def token_vectors(folder: Path) -> Rows:
    """The encoder's vector for each of its tokens, shape (tokens, dimension). Raises SpecError where there are none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np") as weights:
            name = next(key for key in weights.keys() if key.endswith("embeddings.word_embeddings.weight"))  # noqa: SIM118 - it is no mapping
            vectors: NDArray[Any] = weights.get_tensor(name)
    except (OSError, SafetensorError, StopIteration) as error:
        raise SpecError(f"router.checkpoint: {folder / WEIGHTS} holds no vectors of BERT's tokens") from error
    return vectors.astype(np.float32, copy=False)
