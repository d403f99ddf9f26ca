"""BERT's tokenizer with a memory of words: a word that was tokenized once is looked up after that.

BERT breaks a word into the same tokens whatever its neighbours, so the tokens are the same. Two cores tokenize 3,000 to
8,900 prompts of 97 tokens a second; one core looks up ten times as many.
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

# The memory is cleared, but for words of the vocabulary, beyond so many words or characters: about 20 MB.
_MOST_WORDS = 1 << 16
_MOST_CHARACTERS = 1 << 23

# On ASCII, BERT's tokenizer drops control characters, lowers letters, and splits at blanks and punctuation.
_BLANKS = b"\t\n\r"
_CONTROL = bytes(c for c in range(32) if c not in _BLANKS) + b"\x7f"
_SMALL = bytes(c + 32 if 65 <= c <= 90 else 32 if c in _BLANKS else c for c in range(256))
_WORDS = re.compile(rb"[a-z0-9]+|[^a-z0-9 ]")
_SPECIAL = re.compile(r"\[(?:CLS|SEP|PAD|UNK|MASK)\]")

Word = bytes | str


class WordTokens:
    """Turns texts into their first `max_tokens` tokens, the special tokens at both ends included.

    Exact for tokenizers with the rules of uncased BERT's, such as the packaged encoder's.
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
        """Number of tokens that the tokenizer knows."""
        self.max_tokens = max_tokens
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._before, self._after = self._tokenizer.encode("").ids
        self._max_words_tokens = max_tokens - 2
        self._max_characters = max_tokens * CHARACTERS_PER_TOKEN
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False)
        # BERT breaks a word into the longest pieces of its vocabulary: a word that is itself a piece stays whole.
        whole = {word: token for piece, token in vocabulary.items() if _WORDS.fullmatch(word := piece.encode())}
        self._whole = tuple(whole)
        self._known: dict[Word, int] = {}
        # The tokens of all remembered words, one word after the other, first the words that stay whole; then, for each
        # word, where its tokens begin and how many they are.
        self._tokens: Int64s = np.fromiter(whole.values(), dtype=np.int64, count=len(whole))
        self._starts: Int64s = np.arange(len(whole), dtype=np.int64)
        self._counts: Int64s = np.ones(len(whole), dtype=np.int64)
        self._forget()

    def __call__(self, texts: Sequence[str]) -> tuple[Int64s, Int64s]:
        """Return the tokens of all texts, one text after the other, and the number of each text's: two or more."""
        words = [_words(text[: self._max_characters]) for text in texts]
        places = self._places(list(chain.from_iterable(words)))
        tokens, word_ends = self._looked_up(places)
        ends = word_ends[np.cumsum([len(each) for each in words], dtype=np.int64)]
        counts = np.diff(ends, prepend=0)
        place = np.arange(len(tokens)) - np.repeat(ends - counts, counts)
        return self._marked(tokens[place < self._max_words_tokens], np.minimum(counts, self._max_words_tokens))

    def _looked_up(self, places: Int64s) -> tuple[Int64s, Int64s]:
        """The tokens of these words, one word after the other, and a 0 followed by the end of each word's tokens."""
        counts = self._counts[places]
        ends = np.cumsum(counts)
        found = np.repeat(self._starts[places] - ends + counts, counts) + np.arange(counts.sum())
        return self._tokens[found], np.concatenate([[0], ends])

    def _marked(self, tokens: Int64s, counts: Int64s) -> tuple[Int64s, Int64s]:
        """Add the special tokens before and after those of each text."""
        lengths = counts + 2
        ends = np.cumsum(lengths)
        marked = np.empty(int(lengths.sum()), dtype=np.int64)
        between = np.ones(len(marked), dtype=bool)
        for where, mark in ((ends - lengths, self._before), (ends - 1, self._after)):
            marked[where], between[where] = mark, False
        marked[between] = tokens
        return marked, lengths

    def _places(self, words: list[Word]) -> Int64s:
        """The number of each word in the memory; words that are not in it are tokenized first."""
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
        """Clear the memory, but for the words that stay whole."""
        self._known = {word: place for place, word in enumerate(self._whole)}
        self._characters, kept = 0, len(self._whole)
        self._tokens, self._starts, self._counts = self._tokens[:kept], self._starts[:kept], self._counts[:kept]


def tokenizer_sha256(folder: Path) -> str:
    """SHA-256 of the tokenizer file in `folder`, which must exist."""
    with (folder / TOKENIZER).open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def distinct(tokens: Int64s, lengths: Int64s) -> tuple[Int64s, Int64s]:
    """Return the different tokens of each text, one text after the other, and the number of each text's.

    Args:
        tokens: of all texts, one text after the other.
        lengths: number of tokens of each text.
    """
    most = int(tokens.max(initial=0)) + 1
    found = np.repeat(np.arange(len(lengths)) * most, lengths) + tokens
    found.sort()
    found = found[np.diff(found, prepend=-1) > 0]
    ends = np.searchsorted(found, np.arange(1, len(lengths) + 1) * most)
    counts = np.diff(ends, prepend=0)
    return found - np.repeat(np.arange(len(lengths)) * most, counts), counts


def _words(text: str) -> list[Word]:
    """Split a prompt into words whose tokens, one word after the other, are the prompt's tokens."""
    if text.isascii() and not _SPECIAL.search(text):
        return list(_ascii_words(text))
    return list(_other_words(text))


def _ascii_words(text: str) -> list[bytes]:
    return _WORDS.findall(text.encode().translate(_SMALL, _CONTROL))


def _other_words(text: str) -> Iterator[Word]:
    """Split at spaces; a part that is not ASCII or spells out a special token is one word, left to the tokenizer."""
    for part in text.split(" "):
        if part.isascii() and not _SPECIAL.search(part):
            yield from _ascii_words(part)
        else:
            yield part
