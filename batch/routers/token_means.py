"""Means over a prompt's tokens of one row per token, without a transformer.

What a word breaks into does not depend on its neighbours, so words are looked up rather than tokenized again: two
cores tokenize 8,900 prompts of 97 tokens a second, and one looks up 45,000, with the same tokens.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.embedder import WEIGHTS
from batch.routers.forward import CHARACTERS_PER_TOKEN

TOKENIZER = "tokenizer.json"

# Prompts looked up at once, and what is remembered of words before it is forgotten: about 100 MB in training, where
# rows are whole vectors, and 20 MB in a router.
_CHUNK = 1024
_MOST_WORDS = 1 << 16
_MOST_CHARACTERS = 1 << 23

# BERT's tokenizer on ASCII: control characters go, letters become small, and words end at blanks and punctuation.
_BLANKS = b"\t\n\r"
_CONTROL = bytes(c for c in range(32) if c not in _BLANKS) + b"\x7f"
_SMALL = bytes(c + 32 if 65 <= c <= 90 else 32 if c in _BLANKS else c for c in range(256))
_WORDS = re.compile(rb"[a-z0-9]+|[^a-z0-9 ]")
_SPECIAL = re.compile(r"\[(?:CLS|SEP|PAD|UNK|MASK)\]")

# The marks around every prompt, as the first word of each.
_FRAME = b""

Word = bytes | str
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
        from tokenizers import Tokenizer

        if not (folder / TOKENIZER).is_file():
            raise SpecError(f"router.checkpoint: cannot read {folder / TOKENIZER}")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._table = table
        self._max_tokens = max_tokens
        self.dimension = int(table.shape[1])
        self._known: dict[Word, int] = {}
        self._tokens: list[list[int]] = []
        self._characters = 0
        self._sums: Rows = np.empty((0, self.dimension), dtype=np.float32)
        self._lengths: NDArray[np.intp] = np.empty(0, dtype=np.intp)
        self._forget()

    def embed(self, texts: Sequence[str]) -> Rows:
        """Return means of shape `(len(texts), dimension)`, in the order of `texts`."""
        means = np.empty((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            means[start : start + len(chunk)] = self._means(chunk)
        return means

    def _means(self, texts: Sequence[str]) -> Rows:
        longest = self._max_tokens * CHARACTERS_PER_TOKEN
        words = [_words(text[:longest]) for text in texts]
        places = self._places(list(chain.from_iterable(words)))
        starts = np.concatenate([[0], np.cumsum([len(each) for each in words])])
        sums = np.add.reduceat(self._sums[places], starts[:-1], axis=0)
        tokens = np.add.reduceat(self._lengths[places], starts[:-1])
        for row in np.flatnonzero(tokens > self._max_tokens).tolist():
            first = self._first_tokens(places[starts[row] : starts[row + 1]])
            sums[row], tokens[row] = self._table[first].sum(axis=0), len(first)
        means: Rows = (sums / tokens[:, None]).astype(np.float32)
        return means

    def _first_tokens(self, places: NDArray[np.intp]) -> list[int]:
        """The tokens that are looked at of a prompt that has more."""
        frame, *rest = places.tolist()
        start, *end = self._tokens[frame]
        tokens = [start]
        for place in rest:
            tokens.extend(self._tokens[place])
            if len(tokens) >= self._max_tokens:
                break
        return tokens[: self._max_tokens - len(end)] + end

    def _places(self, words: list[Word]) -> NDArray[np.intp]:
        """Where each word is remembered, after those not known yet have been tokenized."""
        if len(self._known) > _MOST_WORDS or self._characters > _MOST_CHARACTERS:
            self._forget()
        places = list(map(self._known.get, words))
        if None in places:
            self._learn([word for word in dict.fromkeys(words) if word not in self._known])
            places = list(map(self._known.get, words))
        return np.array(places, dtype=np.intp)

    def _learn(self, words: Sequence[Word]) -> None:
        texts = [word if isinstance(word, str) else word.decode() for word in words]
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        self._remember(words, tokens)

    def _remember(self, words: Sequence[Word], tokens: Sequence[list[int]]) -> None:
        self._known.update(zip(words, range(len(self._known), len(self._known) + len(words)), strict=True))
        self._tokens.extend(tokens)
        self._characters += sum(map(len, words))
        sums = np.stack([self._table[ids].sum(axis=0) for ids in tokens])
        self._sums = np.concatenate([self._sums, sums])
        self._lengths = np.concatenate([self._lengths, [len(ids) for ids in tokens]])

    def _forget(self) -> None:
        self._known.clear()
        self._tokens.clear()
        self._characters = 0
        self._sums, self._lengths = self._sums[:0], self._lengths[:0]
        self._remember([_FRAME], [self._tokenizer.encode("").ids])


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


def _words(text: str) -> list[Word]:
    """A prompt as words whose tokens, one after the other, are its tokens; the marks around them come first."""
    if text.isascii() and not _SPECIAL.search(text):
        return [_FRAME, *_ascii_words(text)]
    return [_FRAME, *_other_words(text)]


def _ascii_words(text: str) -> list[bytes]:
    return _WORDS.findall(text.encode().translate(_SMALL, _CONTROL))


def _other_words(text: str) -> Iterator[Word]:
    """What is not ASCII, and marks that are spelled out, are left to the tokenizer, from one space to the next."""
    for part in text.split(" "):
        if part.isascii() and not _SPECIAL.search(part):
            yield from _ascii_words(part)
        else:
            yield part
