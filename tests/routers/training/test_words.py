"""Weights of words, fitted to what heads leave unexplained."""

import numpy as np
import pytest

from batch.routers.checkpoint import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.heads import probabilities
from batch.routers.training.correctness import fit_correctness
from batch.routers.training.data import Judged
from batch.routers.training.fit_words import FEWEST_PROMPTS, fit_words, words_of
from batch.routers.training.worded_heads import Setting, examples, fit_setting
from batch.routers.word_weights import word_tokens
from tests.routers.conftest import PAIR
from tests.routers.test_word_weights import Nothing

SUBJECTS = ("physics", "poetry", "cooking", "history")


def subjects(count: int) -> Judged:
    """Prompts that name a subject among other words; the weak model is bad at physics."""
    chance = np.random.default_rng(0)
    names = chance.choice(SUBJECTS, count)
    prompts = [f"a question on {name} number {place}, if you please" for place, name in enumerate(names)]
    weak = np.where(names == "physics", 0.1, 0.9) > chance.random(count)
    return Judged("subjects", prompts, PAIR, np.stack([weak, np.ones(count)], axis=1).astype(float))


def test_the_matrix_holds_one_over_the_length() -> None:
    """For each different token of a prompt; rows are prompts, also where there are none or several chunks."""
    words = word_tokens()
    found = words_of(["physics physics", ""] * 3000, words)
    assert found.shape == (6000, words.vocabulary)
    (physics,) = set(words(["physics"])[0][1:-1].tolist())
    assert found[[4096], [physics]] == pytest.approx(1 / 4)
    assert found[[5998]].sum() == pytest.approx(3 / 4)
    assert found[[5999]].sum() == pytest.approx(1.0)
    assert words_of([], words).shape == (0, words.vocabulary)


def test_the_fit_is_the_minimum_and_leaves_rare_words_out() -> None:
    """The penalised loss has no slope left in any word; words of few prompts and of all have no weight."""
    judged = subjects(200)
    words, logits = words_of(judged.prompts, word_tokens()), np.full((200, 2), 0.3)
    (_, fitted) = fit_words([words[:50], words[50:]], judged.quality, logits, [1.0, 4.0])
    seen_in = np.bincount(words.indices, minlength=words.shape[1])[fitted.tokens]
    assert ((seen_in >= FEWEST_PROMPTS) & (seen_in < 200)).all()
    features = words[:, fitted.tokens].toarray()
    rarity = np.log(200 / seen_in)
    scale = rarity / np.sqrt(((features * rarity) ** 2).sum() / 200)
    wrong = probabilities(logits + features @ fitted.weight.T) - judged.quality
    slope = (features * scale).T @ wrong + 4.0 * (fitted.weight / scale).T
    assert np.abs(slope).max() < 1e-3
    (physics,) = np.flatnonzero(fitted.tokens == word_tokens()(["physics"])[0][1])
    assert fitted.weight[0, physics] == fitted.weight[0].min()


def test_labels_left_out_do_not_count() -> None:
    """A model's weights are those of the prompts on which it was judged."""
    judged = subjects(200)
    judged.quality[:80, 0] = np.nan
    words, logits = words_of(judged.prompts, word_tokens()), np.zeros((200, 2))
    whole = next(fit_words([words], judged.quality, logits, [2.0]))
    same = judged.quality.copy()
    same[80:, 1] = np.nan
    part = next(fit_words([words], same, logits, [2.0]))
    np.testing.assert_array_equal(whole.weight[0], part.weight[0])
    assert np.abs(whole.weight[1] - part.weight[1]).max() > 1e-3


def test_words_are_taken_where_they_tell_something() -> None:
    """Vectors that say nothing leave it to them, and the router scores as the heads that were fitted."""
    judged = subjects(240)
    trained = fit_correctness([judged], Nothing(), 0, 0.2)
    assert trained.chosen["word_penalty"] in (3.0, 10.0)
    encoder = EncoderConfig(name="nothing", layer=0, max_tokens=9, dimension=1)
    config = CheckpointConfig(
        models=PAIR, matched_by="name", encoder=encoder, options=dict(trained.options), weights_sha256=""
    )
    scores = CorrectnessRouter(PAIR, Checkpoint(config, trained.tensors), Nothing()).score(judged.prompts)
    setting = Setting(trained.chosen["heads"], trained.chosen["penalty"], trained.chosen["word_penalty"])
    prepared = examples([judged], Nothing(), 0)
    np.testing.assert_allclose(
        scores, probabilities(fit_setting(prepared, setting).logits(prepared[0])), rtol=0, atol=1e-5
    )
    physics = np.array(["physics" in prompt for prompt in judged.prompts])
    assert scores[physics, 0].max() < scores[~physics, 0].min()


def test_words_are_left_out_where_they_tell_nothing() -> None:
    """Right answers by lot: of all that is tried, heads alone predict those held out best."""
    chance = np.random.default_rng(1)
    right = np.stack([chance.random(200) < 0.5, chance.random(200) < 0.9], axis=1).astype(float)
    trained = fit_correctness([Judged("lots", subjects(200).prompts, PAIR, right)], Nothing(), 0, 0.2)
    assert "word_penalty" not in trained.chosen
    assert trained.options == {}
