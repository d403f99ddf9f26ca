"""Means over a prompt's tokens of one row per token, without a transformer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Int64s
from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import WEIGHTS
from batch.routers.network.wordpiece import WordTokens, distinct

# Most prompts at a time, and most numbers: 64 MB in training, where a token's row is a whole vector.
_CHUNK = 1024
_MOST_NUMBERS = 1 << 24


class TokenMeans:
    """An embedder: the mean of a table's rows over the tokens of a prompt, its special tokens included."""

    def __init__(self, words: WordTokens, table: Float32s | None, once: Float32s | None = None) -> None:
        """Keep the tables; at least one of the two is needed.

        Args:
            words: turns prompts into tokens.
            table: a row for each token, shape (tokens, width).
            once: a second table of that shape. Its row is added to the sum once for each different token of a prompt,
                before the sum is divided by the number of all its tokens.
        """
        self._tokens, self._table, self._once = words, table, once
        self.dimension = next(int(one.shape[1]) for one in (table, once) if one is not None)
        self._chunk = max(min(_CHUNK, _MOST_NUMBERS // (words.max_tokens * self.dimension)), 1)

    def embed(self, texts: Sequence[str]) -> Float32s:
        """Return means of shape `(len(texts), dimension)`, in the order of `texts`."""
        means = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), self._chunk):
            chunk = texts[start : start + self._chunk]
            means[start : start + len(chunk)] = self._means(chunk)
        return means

    def _means(self, texts: Sequence[str]) -> Float32s:
        tokens, lengths = self._tokens(texts)
        sums = np.zeros((len(texts), self.dimension), dtype=np.float32)
        if self._table is not None:
            sums += _sums(self._table, tokens, lengths)
        if self._once is not None:
            sums += _sums(self._once, *distinct(tokens, lengths))
        means: Float32s = (sums / lengths[:, None]).astype(np.float32)
        return means


def _sums(table: Float32s, tokens: Int64s, lengths: Int64s) -> Float32s:
    """The sum of the rows of each text's tokens, shape (texts, width); every text has at least one token."""
    sums: Float32s = np.add.reduceat(table[tokens], np.cumsum(lengths) - lengths, axis=0)
    return sums


def token_vectors(folder: Path) -> Float32s:
    """The encoder's embedding of each token, shape (tokens, dimension). Raises SpecError if the folder has none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="np") as weights:
            name = next(key for key in weights.keys() if key.endswith("embeddings.word_embeddings.weight"))  # noqa: SIM118 - it is no mapping
            vectors: NDArray[Any] = weights.get_tensor(name)
    except (OSError, SafetensorError, StopIteration) as error:
        raise SpecError(f"router.checkpoint: {folder / WEIGHTS} holds no vectors of BERT's tokens") from error
    return vectors.astype(np.float32, copy=False)
