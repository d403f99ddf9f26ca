"""The static router, which scores by means over token vectors and runs no transformer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.checkpoints.format import CHECKPOINTS, CONFIG, load_checkpoint, save_checkpoint
from batch.routers.estimators.token_means import TokenMeans, token_vectors
from batch.routers.estimators.word_weights import word_logits
from batch.routers.network.wordpiece import WordTokens
from batch.routers.registry import build_router
from batch.training.data import Judged
from batch.training.encoders import token_encoder
from batch.training.static import fit_static
from schemas.routers import StaticRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.network.own_tokenizer import own_tokenizer

EASY = "What is the capital of France?"
HARD = "Let G be a finite group of order 56. Show that G has a normal Sylow subgroup.\nAnswer:"

# Two columns that reveal over which tokens a mean was taken, and over how many.
TABLE = np.stack([np.arange(30522.0), np.arange(30522.0) % 97], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def lookups() -> TokenMeans:
    return TokenMeans(WordTokens(packaged_encoder(), 20, "key"), TABLE)


def expected(text: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The mean over the tokens that the encoder's own tokenizer gives."""
    mean: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = TABLE[own_tokenizer().encode(text).ids].mean(axis=0)
    return mean


def test_a_mean_is_over_the_tokens_of_a_text(lookups: TokenMeans) -> None:
    """Marks and the last of the 20 tokens count, later tokens do not, in each chunk of a batch."""
    texts = [EASY, "", HARD, "word " * 300] * 300
    np.testing.assert_allclose(lookups.embed(texts), [expected(text) for text in texts[:4]] * 300, rtol=1e-5)


def test_probabilities_of_both_models(static: Router) -> None:
    """Each column is a probability, and the strong model gains more on an exam in group theory than on a capital."""
    scores = static.score([EASY, HARD])
    assert static.models == PAIR
    assert ((scores > 0) & (scores < 1)).all()
    gain = scores[:, 1] - scores[:, 0]
    assert gain[1] > gain[0]


def test_scores_are_those_of_heads_over_the_mean(static: Router) -> None:
    """Adding up what the heads make of each token gives the same score as the heads on the mean vector."""
    from batch.routers.estimators.logistic_heads import Heads, probabilities

    checkpoint = load_checkpoint(CHECKPOINTS / "static", "static")
    vectors = token_encoder().embedder.embed([EASY, HARD])
    words = word_logits(checkpoint, np.eye(2, dtype=np.float32))
    assert words is not None
    logits = Heads.of(checkpoint).logits(vectors) + words.embed([EASY, HARD])
    np.testing.assert_allclose(static.score([EASY, HARD]), probabilities(logits), rtol=0, atol=1e-5)


def test_the_shipped_checkpoint_is_small_and_fits_the_packaged_encoder() -> None:
    """The shipped checkpoint is below a megabyte and names the encoder that is installed."""
    shipped = load_checkpoint(CHECKPOINTS / "static", "static")
    assert sum(file.stat().st_size for file in (CHECKPOINTS / "static").iterdir()) < 1_000_000
    assert shipped.config.encoder.sha256 == encoder_sha256(packaged_encoder())
    assert shipped.config.matched_by == "position"


@pytest.mark.parametrize("encoder", [{"layer": 2}, {"sha256": "0" * 64}])
def test_another_encoder_is_refused(encoder: dict[str, object], tmp_path: Path) -> None:
    """Heads are not used on vectors of a layer or an encoder that they were not trained on."""
    copy = Path(shutil.copytree(CHECKPOINTS / "static", tmp_path / "copy"))
    config = json.loads((copy / CONFIG).read_text())
    (copy / CONFIG).write_text(json.dumps(config | {"encoder": config["encoder"] | encoder}))
    with pytest.raises(SpecError, match="not trained on the token embeddings of the packaged encoder"):
        build_router(StaticRouterSpec(kind="static", checkpoint=str(copy)), PAIR, seed=0)


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    """A missing tokenizer and missing vectors are refused, not replaced."""
    with pytest.raises(SpecError, match=r"cannot read .*tokenizer\.json"):
        WordTokens(tmp_path, 20, "router.checkpoint")
    with pytest.raises(SpecError, match="holds no vectors"):
        token_vectors(tmp_path)


def test_trained_and_built_it_tells_prompts_apart(tmp_path: Path) -> None:
    """Heads trained on the encoder's means score by looked-up words in the router, and follow the labels."""
    encoder = token_encoder()
    prompts = [f"{word} number {i}" for i in range(60) for word in ("physics", "poetry")]
    quality = np.tile([[0.0, 1.0], [1.0, 1.0]], (60, 1))
    trained = fit_static([Judged("words", prompts, PAIR, quality)], encoder.embedder, 0, 0.2)
    save_checkpoint(
        tmp_path,
        trained.tensors,
        kind="static",
        models=PAIR,
        matched_by="name",
        encoder=encoder.config(),
        options=trained.options,
        training={},
        card="",
    )
    scores = build_router(StaticRouterSpec(kind="static", checkpoint=str(tmp_path)), PAIR, seed=0).score(prompts[:2])
    assert scores[0, 0] < 0.5 < scores[1, 0]
    assert scores[:, 1].min() > 0.5
