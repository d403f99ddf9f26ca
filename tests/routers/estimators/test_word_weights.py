"""Word weights, which are added to the heads' log odds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.estimators.word_weights import WordWeights, word_logits, word_tokens
from batch.routers.network.wordpiece import distinct
from tests.routers.conftest import PAIR

# The packaged encoder's tokens for `physics`, `poetry` and `number`.
PHYSICS, POETRY, NUMBER = word_tokens()(["physics poetry number"])[0][1:-1].tolist()


class Nothing:
    """Embeds every text as zero."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.zeros((len(texts), 1), dtype=np.float32)


def checkpoint(weights: WordWeights, **changed: Any) -> Checkpoint:
    """Heads whose weights are all zero, with these word weights."""
    encoder = EncoderConfig(name="nothing", layer=0, max_tokens=9, dimension=1)
    config = CheckpointConfig(
        models=PAIR, matched_by="name", encoder=encoder, options=weights.options(), weights_sha256=""
    )
    tensors = {"weight": np.zeros((2, 1), np.float32), "bias": np.zeros(2, np.float32), **weights.tensors()}
    return Checkpoint(config, {**tensors, **changed})


WEIGHTS = WordWeights(np.array([PHYSICS, POETRY], np.int32), np.array([[-6.0, 3.0], [1.0, 2.0]], np.float32))


def test_distinct_tokens_of_each_text() -> None:
    """Each token is listed once for each text that has it, and texts do not mix."""
    tokens, counts = distinct(np.array([5, 3, 5, 3, 3, 9, 5]), np.array([3, 2, 2]))
    assert tokens.tolist() == [3, 5, 3, 5, 9]
    assert counts.tolist() == [2, 1, 2]


def test_a_word_counts_once_and_by_the_length_of_the_prompt() -> None:
    """A weight is divided by the number of the prompt's tokens, marks and repetitions included; other words add 0."""
    logits = word_logits(checkpoint(WEIGHTS), np.eye(2, dtype=np.float32))
    assert logits is not None
    added = logits.embed(["Physics", "physics physics number", "poetry, physics!", "number", ""])
    np.testing.assert_allclose(
        added, [[-6 / 3, 1 / 3], [-6 / 5, 1 / 5], [-3 / 6, 3 / 6], [0.0, 0.0], [0.0, 0.0]], rtol=1e-6, atol=1e-7
    )


def test_words_are_added_to_what_the_heads_say() -> None:
    """The router adds heads and word weights, in the order of the job's models; without word weights it has none."""
    router = CorrectnessRouter(PAIR[::-1], checkpoint(WEIGHTS), Nothing())
    odds = np.array([[1 / 3, -2.0], [2 / 3, 1.0]])
    np.testing.assert_allclose(router.score(["physics", "poetry"]), 1 / (1 + np.exp(-odds)), rtol=1e-6)
    assert (
        word_logits(
            Checkpoint(
                CheckpointConfig(
                    models=PAIR, matched_by="name", encoder=checkpoint(WEIGHTS).config.encoder, weights_sha256=""
                ),
                {},
            ),
            np.eye(2, dtype=np.float32),
        )
        is None
    )


@pytest.mark.parametrize(
    ("tokens", "weight", "says"),
    [
        (np.array([1.5]), np.zeros((2, 1)), "no token has"),
        (np.array([-1]), np.zeros((2, 1)), "no token has"),
        (np.array([1 << 20]), np.zeros((2, 1)), "no token has"),
        (np.array([7, 8, 7]), np.zeros((2, 3)), "a token twice"),
        (np.array([7]), np.zeros((2, 2)), "`word_weight` of shape"),
        (np.array([7]), np.full((2, 1), np.nan), "not finite"),
    ],
)
def test_words_that_fit_nothing_are_refused(tokens: NDArray[Any], weight: NDArray[Any], says: str) -> None:
    """Such a checkpoint is refused when the router is built, before anything is scored."""
    spoilt = checkpoint(WEIGHTS, word_tokens=tokens, word_weight=weight)
    with pytest.raises(SpecError, match=says):
        CorrectnessRouter(PAIR, spoilt, Nothing())


def test_words_of_another_tokenizer_are_refused() -> None:
    """The same token number would be another word there."""
    fine = checkpoint(WEIGHTS)
    for name in ("0" * 64, None, 5):
        other = replace(fine, config=fine.config.model_copy(update={"options": {"words": name}}))
        with pytest.raises(SpecError, match="another tokenizer"):
            CorrectnessRouter(PAIR, other, Nothing())


def test_each_model_has_its_own_weights() -> None:
    """If a job lists three models in another order, each gets the weights that were trained for it."""
    table = WordWeights(np.array([PHYSICS], np.int32), np.array([[1.0], [2.0], [3.0]], np.float32))
    # The job's models are the checkpoint's third, first and second.
    mixture = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)
    assert table.table(30522, mixture)[PHYSICS].tolist() == [3.0, 1.0, 2.0]
