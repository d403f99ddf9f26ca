"""BERT's tokens of a prompt, with words looked up rather than tokenized again.

What a word breaks into does not depend on its neighbours: two cores tokenize 3,000 to 8,900 prompts of 97 tokens a
second, and one looks up ten times as many, with the same tokens.
"""

import re
from collections.abc import Iterator, Sequence
from hashlib import file_digest
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from batch.arrays import Int64s
from batch.errors import SpecError
from batch.routers.network.forward import CHARACTERS_PER_TOKEN

TOKENIZER = "tokenizer.json"

# What is remembered of words before it is forgotten, beside those of the vocabulary: about 20 MB.
_MOST_WORDS = 1 << 16
_MOST_CHARACTERS = 1 << 23

# BERT's tokenizer on ASCII: control characters go, letters become small, and words end at blanks and punctuation.
_BLANKS = b"\t\n\r"
_CONTROL = bytes(c for c in range(32) if c not in _BLANKS) + b"\x7f"
_SMALL = bytes(c + 32 if 65 <= c <= 90 else 32 if c in _BLANKS else c for c in range(256))
_WORDS = re.compile(rb"[a-z0-9]+|[^a-z0-9 ]")
_SPECIAL = re.compile(r"\[(?:CLS|SEP|PAD|UNK|MASK)\]")

Word = bytes | str


class WordTokens:
    """Texts -> their first `max_tokens` tokens, the mark before them and the one after included.

    Exact for tokenizers that do as uncased BERT's does, which the packaged encoder's is.
    """

    def __init__(self, folder: Path, max_tokens: int, key: str) -> None:
        """Load the tokenizer of the encoder in `folder`.

        Args:
            key: what the user calls the encoder, for messages.

        Raises:
            SpecError: it holds no tokenizer.
        """
        from tokenizers import Tokenizer

        if not (folder / TOKENIZER).is_file():
            raise SpecError(f"{key}: cannot read {folder / TOKENIZER}")
        self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER))
        self.vocabulary: int = self._tokenizer.get_vocab_size()
        """How many tokens there are."""
        self.max_tokens = max_tokens
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._before, self._after = self._tokenizer.encode("").ids
        self._max_words_tokens = max_tokens - 2
        self._max_characters = max_tokens * CHARACTERS_PER_TOKEN
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False)
        # A word is broken into the longest pieces there are: one that is itself a piece stays whole.
        whole = {word: token for piece, token in vocabulary.items() if _WORDS.fullmatch(word := piece.encode())}
        self._whole = tuple(whole)
        self._known: dict[Word, int] = {}
        # Of all words one after the other, first those that stay whole; where each word's begin, and how many they are.
        self._tokens: Int64s = np.fromiter(whole.values(), dtype=np.int64, count=len(whole))
        self._starts: Int64s = np.arange(len(whole), dtype=np.int64)
        self._counts: Int64s = np.ones(len(whole), dtype=np.int64)
        self._forget()

    def __call__(self, texts: Sequence[str]) -> tuple[Int64s, Int64s]:
        """Return the tokens of all texts, one after the other, and how many each text has, two or more."""
        words = [_words(text[: self._max_characters]) for text in texts]
        places = self._places(list(chain.from_iterable(words)))
        tokens, word_ends = self._looked_up(places)
        ends = word_ends[np.cumsum([len(each) for each in words], dtype=np.int64)]
        counts = np.diff(ends, prepend=0)
        place = np.arange(len(tokens)) - np.repeat(ends - counts, counts)
        return self._marked(tokens[place < self._max_words_tokens], np.minimum(counts, self._max_words_tokens))

    def _looked_up(self, places: Int64s) -> tuple[Int64s, Int64s]:
        """The tokens of these words, and where those of each word end, after a 0."""
        counts = self._counts[places]
        ends = np.cumsum(counts)
        found = np.repeat(self._starts[places] - ends + counts, counts) + np.arange(counts.sum())
        return self._tokens[found], np.concatenate([[0], ends])

    def _marked(self, tokens: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
        """With a mark before and one after those of each text."""
        lengths = counts + 2
        ends = np.cumsum(lengths)
        marked = np.empty(int(lengths.sum()), dtype=np.int64)
        between = np.ones(len(marked), dtype=bool)
        for where, mark in ((ends - lengths, self._before), (ends - 1, self._after)):
            marked[where], between[where] = mark, False
        marked[between] = tokens
        return marked, lengths

    def _places(self, words: list[Word]) -> Int64s:
        """Where each word is remembered, after those not known yet have been tokenized."""
        if len(self._known) - len(self._whole) > _MOST_WORDS or self._characters > _MOST_CHARACTERS:
            self._forget()
        places = list(map(self._known.get, words))
        if None in places:
            self._learn([word for word in dict.fromkeys(words) if word not in self._known])
            places = list(map(self._known.get, words))
        return np.array(places, dtype=np.int64)

    def _learn(self, words: Sequence[Word]) -> None:
        texts = [word if isinstance(word, str) else word.decode() for word in words]
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        counts = np.array([len(ids) for ids in tokens], dtype=np.int64)
        self._known.update(zip(words, range(len(self._known), len(self._known) + len(words)), strict=True))
        self._characters += sum(map(len, words))
        self._starts = np.concatenate([self._starts, len(self._tokens) + np.cumsum(counts) - counts])
        self._counts = np.concatenate([self._counts, counts])
        self._tokens = np.concatenate([self._tokens, np.fromiter(chain.from_iterable(tokens), dtype=np.int64)])

    def _forget(self) -> None:
        """All words but those that stay whole."""
        self._known = {word: place for place, word in enumerate(self._whole)}
        self._characters, kept = 0, len(self._whole)
        self._tokens, self._starts, self._counts = self._tokens[:kept], self._starts[:kept], self._counts[:kept]


def tokenizer_sha256(folder: Path) -> str:
    """Hash of the tokenizer of the packaged encoder in `folder`, which is there."""
    with (folder / TOKENIZER).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def distinct(tokens: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s]:
    """Return the different tokens of each text, one text after the other, and how many each text has.

    Args:
        tokens: of all texts, one after the other.
        lengths: how many each text has.
    """
    most = int(tokens.max(initial=0)) + 1
    found = np.repeat(np.arange(len(lengths)) * most, lengths) + tokens
    found.sort()
    found = found[np.diff(found, prepend=-1) > 0]
    ends = np.searchsorted(found, np.arange(1, len(lengths) + 1) * most)
    counts = np.diff(ends, prepend=0)
    return found - np.repeat(np.arange(len(lengths)) * most, counts), counts


def _words(text: str) -> list[Word]:
    """A prompt as words whose tokens, one after the other, are its tokens."""
    if text.isascii() and not _SPECIAL.search(text):
        return list(_ascii_words(text))
    return list(_other_words(text))


def _ascii_words(text: str) -> list[bytes]:
    return _WORDS.findall(text.encode().translate(_SMALL, _CONTROL))


def _other_words(text: str) -> Iterator[Word]:
    """What is not ASCII, and marks that are spelled out, are left to the tokenizer, from one space to the next."""
    for part in text.split(" "):
        if part.isascii() and not _SPECIAL.search(part):
            yield from _ascii_words(part)
        else:
            yield part
