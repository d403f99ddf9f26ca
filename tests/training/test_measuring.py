"""Figures of a trained router on prompts that it has not seen."""

import numpy as np
import pytest
from numpy.random import default_rng

from batch.training.data import Judged
from batch.training.measuring import cautions, cutoffs, measure, tuning_cautions
from schemas.training import HeldOut
from tests.measures.reference import apgr, cpt


def held(count: int, seed: int = 0) -> tuple[Judged, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Prompts of different lengths, the quality of two models, and scores that correlate with the quality gap."""
    chance = default_rng(seed)
    quality = np.stack([chance.random(count) < 0.5, chance.random(count) < 0.8], axis=1).astype(float)
    scores = quality[:, 1] - quality[:, 0] + chance.normal(size=count)
    prompts = [f"p{i}" + " word" * int(n) for i, n in enumerate(chance.integers(1, 50, count))]
    return Judged("set", prompts, ("small", "large"), quality), scores


def test_figures_are_those_of_the_exact_measures() -> None:
    """APGR and CPT equal the reference, `apgr_length` is the APGR of word counts, the interval contains the APGR."""
    data, scores = held(400)
    found = measure(data, scores, seed=0)
    assert isinstance(found, HeldOut)
    weak, strong = data.quality.T
    words = [len(prompt.split()) for prompt in data.prompts]
    assert found.apgr == pytest.approx(apgr(scores, weak, strong), abs=1e-4)
    assert found.cpt50 == pytest.approx(cpt(scores, weak, strong, 0.5), abs=1e-4)
    assert found.cpt80 == pytest.approx(cpt(scores, weak, strong, 0.8), abs=1e-4)
    assert found.apgr_length == pytest.approx(apgr(words, weak, strong), abs=1e-4)
    assert found.interval is not None
    assert found.interval[0] < found.apgr < found.interval[1]
    assert measure(data, scores, seed=0) == found


def test_only_prompts_with_labels_of_both_count() -> None:
    """The middle of three models needs no labels; too few prompts, or no gap, give a reason and no figures."""
    data, scores = held(100)
    middle = np.full((100, 1), np.nan)
    three = Judged("set", data.prompts, ("a", "b", "c"), np.hstack([data.quality[:, :1], middle, data.quality[:, 1:]]))
    found, same = measure(three, scores, 0), measure(data, scores, 0)
    assert isinstance(found, HeldOut)
    assert found == same
    three.quality[15:, 2] = np.nan
    said = measure(three, scores, 0)
    assert isinstance(said, str)
    assert "only 15 of its held-out prompts" in said
    flat = Judged("set", data.prompts, ("a", "b"), np.ones((100, 2)))
    rounded = Judged("set", data.prompts, ("a", "b"), np.array([[0.3, 0.1], [0.5, 0.7]] * 50))
    for equal in (flat, rounded):
        assert measure(equal, scores, 0) == "on its held-out prompts b is no better than a"


def test_cutoffs_send_their_share() -> None:
    """Each cutoff sends its share of the held-out prompts; if these are too few, training prompts count as well."""
    scores = default_rng(0).random(1000)
    for share, cutoff in cutoffs(scores, lambda: np.zeros(0)).items():
        assert (scores.astype(np.float32) >= np.float32(cutoff)).mean() == pytest.approx(float(share), abs=1e-3)
    few = cutoffs(scores[:10], lambda: scores[10:])
    assert few == cutoffs(scores, lambda: np.zeros(0))


def test_cautions_say_what_is_weak() -> None:
    """A sentence warns of each: few labels, one model with far fewer, no gain over word counts, chance, no figures."""
    good = HeldOut(
        prompts=300, weakest=0.5, strongest=0.8, apgr=0.7, interval=(0.6, 0.8), cpt50=0.3, cpt80=0.6, apgr_length=0.6
    )
    weak = good.model_copy(update={"apgr": 0.55, "interval": (0.45, 0.65)})
    assert list(cautions({"set": good}, 1000, {"a": 1000, "b": 1000})) == []
    said = list(cautions({"set": weak, "other": "nothing is there"}, 150, {"a": 150, "b": 60}))
    assert len(said) == 5
    for words in (
        "Only 150 different prompts are labelled",
        "b has 60 labels, and another model 150",
        "set: no better than the word count, 0.550 against 0.600",
        "set: with 300 prompts held out, 0.550 may be chance",
        "other: not measured, for nothing is there.",
    ):
        assert any(words in line for line in said), words


def test_cautions_say_where_fine_tuning_brought_nothing() -> None:
    """A sentence warns of a base model kept as it was, and of a loss no better than that of the labels' shares."""
    good = {"epoch": 2, "validation_losses": [1.1, 0.9, 0.8], "validation_loss_of_shares": 1.0}
    causal = {"epoch": 0, "validation_losses": [1.1, 1.2, 1.3]}
    for chosen in (good, {"penalty": 3.0}, {"epochs": 7}, causal | {"epoch": 1}):
        assert list(tuning_cautions(chosen)) == []
    (kept,) = tuning_cautions(causal)
    assert "no epoch predicted the validation part better" in kept
    (no_better,) = tuning_cautions(good | {"validation_loss_of_shares": 0.8})
    assert "a loss of 0.8000 against 0.8000" in no_better
    assert len(list(tuning_cautions(good | {"epoch": 0}))) == 2
