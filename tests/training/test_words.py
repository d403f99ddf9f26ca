"""Weights of words, fitted to what heads leave unexplained."""

import numpy as np
import pytest

from batch.routers.checkpoints.format import Checkpoint, CheckpointConfig, EncoderConfig
from batch.routers.correctness import CorrectnessRouter
from batch.routers.estimators.logistic_heads import probabilities
from batch.routers.estimators.word_weights import word_tokens
from batch.training.correctness import fit_correctness
from batch.training.data import Judged, assign_parts
from batch.training.fit_words import FEWEST_PROMPTS, fit_words, words_of
from batch.training.worded_heads import Setting, fit_setting, fit_settings, unseen_probabilities, worded_sets
from tests.routers.conftest import PAIR
from tests.routers.estimators.test_word_weights import Nothing
from tests.routers.vectors import NumbersInText, texts

SUBJECTS = ("physics", "poetry", "cooking", "history")


def subjects(count: int) -> Judged:
    """Prompts that name a subject among other words; the weak model is bad at physics."""
    chance = np.random.default_rng(0)
    names = chance.choice(SUBJECTS, count)
    # Some prompts are longer than the part that is tokenized.
    after = [" by the way" * (120 if place % 40 == 0 else 0) for place in range(count)]
    prompts = [
        f"a question on {name} number {place}, if you please{more}"
        for place, (name, more) in enumerate(zip(names, after, strict=True))
    ]
    weak = np.where(names == "physics", 0.1, 0.9) > chance.random(count)
    return Judged("subjects", prompts, PAIR, np.stack([weak, np.ones(count)], axis=1).astype(float))


def test_the_matrix_holds_one_over_the_length() -> None:
    """Each distinct token of a prompt has that value; rows are prompts, also with no prompt or with several chunks."""
    words = word_tokens()
    found = words_of(["physics physics", ""] * 3000, words)
    assert found.shape == (6000, words.vocabulary)
    (physics,) = set(words(["physics"])[0][1:-1].tolist())
    assert found[[4096], [physics]] == pytest.approx(1 / 4)
    assert found[[5998]].sum() == pytest.approx(3 / 4)
    assert found[[5999]].sum() == pytest.approx(1.0)
    assert words_of([], words).shape == (0, words.vocabulary)


def test_the_fit_is_the_minimum_and_leaves_rare_words_out() -> None:
    """The penalised loss has a gradient of zero; words of too few prompts, and words of all, get no weight."""
    judged = subjects(200)
    words, logits = words_of(judged.prompts, word_tokens()), np.full((200, 2), 0.3)
    (_, fitted) = fit_words([words[:50], words[50:]], np.arange(200), judged.quality, logits, [1.0, 4.0])
    in_prompts = np.bincount(words.indices, minlength=words.shape[1])
    assert FEWEST_PROMPTS in in_prompts
    np.testing.assert_array_equal(fitted.tokens, np.flatnonzero((in_prompts >= FEWEST_PROMPTS) & (in_prompts < 200)))
    seen_in = in_prompts[fitted.tokens]
    features = words[:, fitted.tokens].toarray()
    rarity = np.log(200 / seen_in)
    scale = rarity / np.sqrt(((features * rarity) ** 2).sum() / 200)
    wrong = probabilities(logits + features @ fitted.weight.T) - judged.quality
    slope = (features * scale).T @ wrong + 4.0 * (fitted.weight / scale).T
    assert np.abs(slope).max() < 1e-3
    (physics,) = np.flatnonzero(fitted.tokens == word_tokens()(["physics"])[0][1])
    assert fitted.weight[0, physics] == fitted.weight[0].min()


def test_words_of_one_prompt_stay_out_however_often_it_is_labelled() -> None:
    """A word of one prompt gets no weight, even if that prompt has 30 labels; a word of many prompts does."""
    judged = subjects(200)
    words = word_tokens()
    prompts = [*judged.prompts, *["Nakamura asks on physics"] * 30]
    quality = np.concatenate([judged.quality, np.tile([0.0, 1.0], (30, 1))])
    rank = np.array([*range(200), *[200] * 30])
    fitted = next(fit_words([words_of(prompts, words)], rank, quality, np.zeros((230, 2)), [2.0]))
    named = set(words(["Nakamura asks"])[0][1:-1].tolist())
    assert named.isdisjoint(fitted.tokens.tolist())
    assert words(["physics"])[0][1] in fitted.tokens


def test_labels_left_out_do_not_count() -> None:
    """A model's word weights depend only on the prompts on which it was judged."""
    judged = subjects(200)
    judged.quality[:80, 0] = np.nan
    words, logits = words_of(judged.prompts, word_tokens()), np.zeros((200, 2))
    rank = np.arange(200)
    whole = next(fit_words([words], rank, judged.quality, logits, [2.0]))
    same = judged.quality.copy()
    same[80:, 1] = np.nan
    part = next(fit_words([words], rank, same, logits, [2.0]))
    np.testing.assert_array_equal(whole.weight[0], part.weight[0])
    assert np.abs(whole.weight[1] - part.weight[1]).max() > 1e-3


def test_words_are_taken_where_they_tell_something() -> None:
    """If the vectors carry no information, words get weights, and the router scores as the fitted heads do."""
    judged = subjects(240)
    trained = fit_correctness([judged], Nothing(), 0, 0.2)
    assert trained.chosen["word_penalty"] in (3.0, 10.0)
    encoder = EncoderConfig(name="nothing", layer=0, max_tokens=9, dimension=1)
    config = CheckpointConfig(
        models=PAIR, matched_by="name", encoder=encoder, options=dict(trained.options), weights_sha256=""
    )
    scores = CorrectnessRouter(PAIR, Checkpoint(config, trained.tensors), Nothing()).score(judged.prompts)
    setting = Setting(trained.chosen["heads"], trained.chosen["penalty"], trained.chosen["word_penalty"])
    prepared = worded_sets([judged], Nothing(), 0)
    tried = dict(zip(Setting.all_of(setting.form), fit_settings(prepared, setting.form), strict=True))
    for fitted in (fit_setting(prepared, setting), tried[setting]):
        np.testing.assert_allclose(scores, probabilities(fitted.logits(prepared[0])), rtol=0, atol=1e-3)
    physics = np.array(["physics" in prompt for prompt in judged.prompts])
    assert scores[physics, 0].max() < scores[~physics, 0].min()


def test_words_explain_what_each_sets_own_heads_do_not() -> None:
    """If two sets differ in level and share no word, their heads explain the level, not the words."""
    chance = np.random.default_rng(2)
    easy, hard = (np.stack([chance.random(300) < odds, np.ones(300)], axis=1).astype(float) for odds in (0.95, 0.05))
    names = [f"number {place}" for place in range(300)]
    sets = [
        Judged("easy", [f"sing {name}" for name in names], PAIR, easy),
        Judged("hard", [f"prove {name}" for name in names], PAIR, hard),
    ]
    words = fit_setting(worded_sets(sets, Nothing(), 0), Setting("linear", 500.0, 1.0)).words
    assert words is not None
    level = [words.weight[0, words.tokens == word_tokens()([name])[0][1]] for name in ("sing", "prove")]
    assert np.abs(level).max() < 0.5


def test_what_was_held_out_is_scored_by_heads_that_have_not_seen_it() -> None:
    """Heads fitted without a prompt know nothing of its random label; heads fitted with it do. Order is kept."""
    chance = np.random.default_rng(1)
    prompts = texts(chance.normal(size=(300, 60)))
    right = np.stack([chance.random(300) < 0.5, chance.random(300) < 0.9], axis=1).astype(float)
    sets = [Judged("lots", prompts[:200], PAIR, right[:200]), Judged("more", prompts[200:], PAIR, right[200:])]
    prepared, setting = worded_sets(sets, NumbersInText(), 0), Setting("linear", 1.0, None)
    unseen = np.concatenate(unseen_probabilities(prepared, [assign_parts(one.prompts, 5, 3) for one in sets], setting))
    own = np.concatenate([probabilities(fit_setting(prepared, setting).logits(one)) for one in prepared])
    assert np.corrcoef(own[:, 0], right[:, 0])[0, 1] > 0.4
    assert abs(np.corrcoef(unseen[:, 0], right[:, 0])[0, 1]) < 0.2


def test_words_are_left_out_where_they_tell_nothing() -> None:
    """If the labels are random, heads without words predict the held-out labels best, so words are left out."""
    chance = np.random.default_rng(1)
    right = np.stack([chance.random(200) < 0.5, chance.random(200) < 0.9], axis=1).astype(float)
    trained = fit_correctness([Judged("lots", subjects(200).prompts, PAIR, right)], Nothing(), 0, 0.2)
    assert "word_penalty" not in trained.chosen
    assert trained.options == {}
