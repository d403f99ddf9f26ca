"""Weights of single words: what they add to a model's log odds of a good answer, beside the heads on the vector.

A mean over hidden states blurs rare words. So each token that occurs in several training prompts has a weight for each
model. A prompt's log odds get the sum of the weights of its different tokens, divided by the number of all its tokens.
The tokens are those of the packaged encoder's tokenizer, whichever encoder gives the vectors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s
from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import packaged_encoder
from batch.routers.checkpoints.format import WEIGHTS, Checkpoint, Tensors
from batch.routers.estimators.token_means import TokenMeans
from batch.routers.network.wordpiece import WordTokens, tokenizer_sha256

# Only so many tokens from a prompt's beginning count.
MOST_TOKENS = 256
# What a job file calls the weights.
KEY = "router.checkpoint"
_OPTION, _TOKENS, _WEIGHT = "words", "word_tokens", "word_weight"


@dataclass(frozen=True)
class WordWeights:
    """A weight for each of some tokens and each model."""

    tokens: NDArray[Any]
    """Token ids of the tokenizer, shape (words,), integers."""
    weight: Float32s
    """Shape (models, words)."""

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "WordWeights | None":
        """Read them from a checkpoint; `None` if it has none.

        Raises SpecError if they belong to another tokenizer, or do not fit the checkpoint's models.
        """
        if _OPTION not in checkpoint.config.options:
            return None
        if checkpoint.config.options[_OPTION] != tokenizer_sha256(packaged_encoder()):
            raise SpecError(
                f"{KEY}: it has weights for words, and they were trained on another tokenizer than the "
                "packaged encoder's; train it again"
            )
        tokens: NDArray[Any] = checkpoint.stored(_TOKENS, None)
        if not np.issubdtype(tokens.dtype, np.integer) or (tokens < 0).any():
            raise SpecError(f"{KEY}: {WEIGHTS} holds numbers in `{_TOKENS}` that no token has")
        if len(np.unique(tokens)) < len(tokens):
            raise SpecError(f"{KEY}: {WEIGHTS} holds a token twice in `{_TOKENS}`")
        weight = checkpoint.tensor(_WEIGHT, len(checkpoint.config.models), len(tokens))
        return cls(tokens, weight)

    def tensors(self) -> Tensors:
        """The tensors of a checkpoint."""
        return {_TOKENS: self.tokens, _WEIGHT: self.weight}

    def options(self) -> dict[str, str]:
        """The options of a checkpoint."""
        return {_OPTION: tokenizer_sha256(packaged_encoder())}

    def table(self, vocabulary: int, mixture: Float32s) -> Float32s:
        """The weights of each token in its row, shape (vocabulary, job's models); 0 for tokens without weights.

        Args:
            vocabulary: number of tokens that the tokenizer has.
            mixture: shape (checkpoint's models, job's models).

        Raises:
            SpecError: the tokenizer does not have so many tokens.
        """
        if len(self.tokens) and self.tokens.max() >= vocabulary:
            raise SpecError(f"{KEY}: {WEIGHTS} holds numbers in `{_TOKENS}` that no token has")
        found = np.zeros((vocabulary, mixture.shape[1]), dtype=np.float32)
        found[self.tokens] = self.weight.T @ mixture
        return found


def word_tokens() -> WordTokens:
    """The tokenizer of the words that have weights."""
    return WordTokens(packaged_encoder(), MOST_TOKENS, KEY)


def word_logits(checkpoint: Checkpoint, mixture: Float32s) -> TokenMeans | None:
    """Build what computes the words' part of prompts' log odds, shape (prompts, job's models); `None` without words.

    Raises SpecError as `WordWeights.of` and `table`.
    """
    weights = WordWeights.of(checkpoint)
    if weights is None:
        return None
    words = word_tokens()
    return TokenMeans(words, None, weights.table(words.vocabulary, mixture))
