"""`WordTokens` tokenizes by looking up whole words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.network import wordpiece as word_tokens
from batch.routers.network.wordpiece import WordTokens
from tests.routers.network.own_tokenizer import own_tokenizer

EASY = "What is the capital of France?"

TEXTS = [
    "",
    " ",
    EASY,
    "Let G be a finite group of order 56. Show that G has a normal Sylow subgroup.\nAnswer:",
    "don't U.S.A. x_1^2 + 3.14159e-10 (a)[b]{c} UPPER\tTab\rreturn\x00nul\x7fdel\x0bvt\x1cfs",
    "Añade 你好 🎉 “quoted” naïve – ﬁne ÅNGSTRÖM e\u0301 \u0301 x\u00a0y\u2003z\u200bw\u3000q İstanbul ǅ",
    "[CLS] spelled[SEP]out [MASK]. [cls] [PAD][UNK]",
    "word " * 300,
    "supercalifragilistic" * 20,
    "你好" * 100,
]


@pytest.fixture(scope="module")
def tokens() -> WordTokens:
    return WordTokens(packaged_encoder(), 20, "encoder")


def looked_up(tokens: WordTokens, texts: list[str]) -> list[list[int]]:
    """Each text's tokens."""
    found, lengths = tokens(texts)
    return [text.tolist() for text in np.split(found, np.cumsum(lengths)[:-1])]


def test_words_looked_up_are_the_tokenizers(tokens: WordTokens) -> None:
    """Texts of a batch get the tokens of the encoder's own tokenizer, also empty, long and unusual texts."""
    assert looked_up(tokens, TEXTS) == [own_tokenizer().encode(text).ids for text in TEXTS]


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_text(text: str, tokens: WordTokens) -> None:
    """Random texts get the tokens of the encoder's own tokenizer too."""
    assert looked_up(tokens, [text]) == [own_tokenizer().encode(text).ids]


def test_what_is_forgotten_is_learned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropping remembered words changes no token, and the number of remembered words stays bounded."""
    few = WordTokens(packaged_encoder(), 20, "encoder")
    before = looked_up(few, TEXTS)
    monkeypatch.setattr(word_tokens, "_MOST_WORDS", 10)
    assert [looked_up(few, [text])[0] for text in TEXTS] == before
    few([EASY])
    assert len(few._known) - len(few._whole) < 40
