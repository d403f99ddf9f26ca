"""Training of the matrix factorisation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from batch.arrays import Floats
from batch.errors import InputError
from batch.routers.checkpoints.format import EncoderConfig, save_checkpoint
from batch.routers.mf import MfRouter, open_factors
from batch.training.data import Judged, Preferences, Trained
from batch.training.mf import fit_mf
from schemas.routers import MfRouterSpec
from tests.routers.vectors import NumbersInText, texts

MODELS = ("middle", "strong", "weak")
LEVEL = np.array([0.0, 1.0, -1.0])
# Each model has a field of its own, in which it is better than its level says.
FIELD = np.eye(3, 6) * 3.0


def prompts(count: int, seed: int) -> Floats:
    return np.random.default_rng(seed).normal(size=(count, 6)) + 1.0


def strengths(vectors: Floats) -> Floats:
    """Each model's strength by its level and its field, shape (prompts, models)."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    of_each: Floats = LEVEL + (units - units.mean(axis=0)) @ FIELD.T
    return of_each


def preferences(count: int, seed: int) -> Preferences:
    """Preferences between two random models: the stronger on the prompt wins more often, one in six is a tie."""
    chance = np.random.default_rng(seed)
    vectors = prompts(count, seed)
    first = chance.integers(0, 3, count)
    second = (first + chance.integers(1, 3, count)) % 3
    strength = strengths(vectors)
    gain = strength[np.arange(count), first] - strength[np.arange(count), second]
    won = (chance.random(count) < 1 / (1 + np.exp(-gain))).astype(float)
    outcome = np.where(chance.random(count) < 1 / 6, 0.5, won)
    return Preferences("p", texts(vectors), [MODELS[i] for i in first], [MODELS[i] for i in second], outcome)


def judged(count: int, seed: int) -> Judged:
    """Answers of the middle and the strong model, right at random by their strength; every 20th lacks a verdict."""
    chance = np.random.default_rng(seed)
    vectors = prompts(count, seed)
    quality = (chance.random((count, 2)) < 1 / (1 + np.exp(-strengths(vectors)[:, :2]))).astype(float)
    quality[::20, 1] = np.nan
    return Judged("j", texts(vectors), MODELS[:2], quality)


def stored(trained: Trained, folder: Path) -> MfRouterSpec:
    """Write the checkpoint to disk, and return the spec of a router that uses it."""
    encoder = EncoderConfig(name="numbers", layer=0, max_tokens=9, dimension=6)
    save_checkpoint(
        folder,
        trained.tensors,
        kind="mf",
        models=tuple(trained.options["models"]),
        matched_by="name",
        encoder=encoder,
        options=trained.options,
        training=dict(trained.chosen),
        card="",
    )
    return MfRouterSpec(kind="mf", checkpoint=str(folder), strong="strong", weak="weak")


def correlation(spec: MfRouterSpec, strong: str, weak: str) -> float:
    """Correlation of the router's win rates on fresh prompts with the true ones, by which preferences are drawn."""
    fresh = prompts(500, seed=99)
    scores = MfRouter("x", open_factors(spec), strong, weak, NumbersInText()).score(texts(fresh))[:, 0]
    strength = strengths(fresh)
    gain = strength[:, MODELS.index(strong)] - strength[:, MODELS.index(weak)]
    return float(np.corrcoef(scores, 1 / (1 + np.exp(-gain)))[0, 1])


def test_preferences_and_judged_answers_train_one_checkpoint(tmp_path: Path) -> None:
    """Trained on both, the router predicts the win rates of any two of three models, and orders them by strength."""
    trained = fit_mf([preferences(2000, 1), judged(500, 2)], NumbersInText(), 0, 0.15)
    assert trained.options["models"] == ["weak", "middle", "strong"]
    assert trained.chosen["ties"] > 250
    assert trained.chosen["validation_log_loss"] < np.log(2)
    spec = stored(trained, tmp_path)
    for strong, weak in (("strong", "weak"), ("strong", "middle"), ("middle", "weak")):
        assert correlation(spec, strong, weak) > 0.8
    mean = MfRouter("x", open_factors(spec), "strong", "weak", NumbersInText()).score(texts(prompts(500, 99))).mean()
    assert 0.7 < mean < 0.9


def test_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same data and seed give equal factors, another seed gives others, and the models stay in order."""
    monkeypatch.setattr("batch.training.mf.MOST_EPOCHS", 20)
    one, same, other = (fit_mf([judged(150, 3)], NumbersInText(), seed, 0.2) for seed in (1, 1, 2))
    assert one.options == other.options == {"models": ["middle", "strong"]}
    for name, tensor in one.tensors.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, same.tensors[name])
    assert not np.array_equal(one.tensors["projection"], other.tensors["projection"])


def test_training_stops_where_nothing_is_left_to_learn() -> None:
    """Random outcomes cannot be learned: training stops after fewer epochs, with a held-out loss near chance."""
    noise = judged(400, 4)
    noise.quality[:] = np.random.default_rng(0).integers(0, 2, noise.quality.shape)
    lot = fit_mf([noise], NumbersInText(), 0, 0.3)
    learned = fit_mf([preferences(1000, 1)], NumbersInText(), 0, 0.3)
    assert lot.chosen["epochs"] < learned.chosen["epochs"]
    assert lot.chosen["validation_log_loss"] > 0.68


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        ([[1, 1], [0, 0], [0.5, 0.5]], "no model's answer is better than another's"),
        ([[1, np.nan], [np.nan, 0], [np.nan, 1]], "no model's answer is better than another's"),
        ([[1, 0], [np.nan, 0], [np.nan, 1]], "1 prompts are too few to hold out 0.1 of them; add more"),
    ],
)
def test_what_says_too_little_is_refused(quality: Sequence[Sequence[float]], message: str) -> None:
    """Data with only ties, without two answers to compare, or with one prompt to compare them on is refused."""
    data = Judged("few", ["1 2", "3 4", "5 6"], ("a", "b"), np.array(quality, dtype=np.float64))
    with pytest.raises(InputError, match=f"data: {message}"):
        fit_mf([data], NumbersInText(), 0, 0.1)
