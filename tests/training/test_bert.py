"""Fine-tuning of sequence classifiers."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from batch.errors import InputError, SpecError
from batch.routers.bert import BertRouter
from batch.training.bert import fine_tune_bert
from batch.training.data import Judged, Preferences
from batch.training.labels.contests import collect_contests, split_contests
from tests.routers.conftest import PAIR
from tests.routers.tiny_bert import USUAL, WORDS, build_tiny_bert, build_tiny_xlmr, swap_classifier


def judged(count: int, seed: int = 0) -> Judged:
    """Prompts of which the weak model gets those right that begin with "write"; every tenth lacks its verdict."""
    chance = random.Random(seed)
    begins = ("prove that", "write a")
    prompts = [" ".join([chance.choice(begins), *chance.choices(WORDS, k=5)]) for _ in range(count)]
    quality = np.array([[prompt.startswith("write"), 1] for prompt in prompts], dtype=np.float64)
    quality[::10, 0] = np.nan
    return Judged("made up", prompts, PAIR, quality)


def preferences() -> Preferences:
    return Preferences(
        "arena",
        ["a", "b", "c", "d", "e"],
        ["large", "small", "small", "other", "large"],
        ["small", "large", "large", "small", "small"],
        np.array([1.0, 1.0, 0.5, 1.0, np.nan]),
    )


def test_contests_of_both_kinds_of_data() -> None:
    """A contest sets the strongest model against the weakest; unjudged rows and rows of other models are left out."""
    quality = np.array([[0.0, 0.3, 1.0], [1.0, 0.3, 0.5], [np.nan, 0.0, 0.0]])
    both: list[Judged | Preferences] = [
        Judged("x", ["p", "q", "r"], ("small", "middle", "large"), quality),
        preferences(),
    ]
    found = collect_contests(both, ("small", "large"))
    assert dict(zip(found.prompts, found.ahead, strict=True)) == {"p": 1.0, "q": -0.5, "a": 1.0, "b": -1.0, "c": 0.0}


def test_preferences_need_an_order() -> None:
    """Preferences do not say which model is stronger, so `models` must; data without a contest is refused."""
    with pytest.raises(InputError, match="list them, weakest first"):
        collect_contests([preferences()])
    with pytest.raises(InputError, match="no prompt with judged answers"):
        collect_contests([preferences()], ("one", "two"))


def test_equal_prompts_stay_together() -> None:
    """Equal prompts are all trained on or all validated with, and too few prompts are refused."""
    many = judged(40)
    whole = collect_contests([many, many])
    parts = split_contests(whole, 0.25, seed=1)
    assert sum(map(len, parts)) == len(whole)
    assert not set(parts[0].prompts) & set(parts[1].prompts)
    with pytest.raises(InputError, match="too few to keep 10% for validation"):
        split_contests(whole.of([0]), 0.1, seed=1)


@pytest.mark.parametrize("build", [build_tiny_bert, build_tiny_xlmr])
def test_what_is_learned_is_loaded(build: Callable[..., Path], tmp_path: Path) -> None:
    """The router sends prompts for a proof to the strong model, others not; training again gives the same weights."""
    base = build(tmp_path / "base", spread=USUAL)
    told: list[str] = []

    def train(name: str) -> Mapping[str, Any]:
        return fine_tune_bert(
            [judged(200)],
            base,
            tmp_path / name,
            seed=3,
            validation=0.2,
            epochs=12,
            learning_rate=5e-3,
            batch_tokens=256,
            on_epoch=told.append,
        )

    figures = train("one")
    losses = figures["validation_losses"]
    assert losses[figures["epoch"]] == min(losses) < 0.5 * figures["validation_loss_of_shares"]
    assert len(told) == len(losses) - 1
    assert figures["labels"]["weak wins"] == 0
    assert figures["prompts"] + figures["validation_prompts"] == 180
    assert train("two") == figures
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    rates = BertRouter("large", tmp_path / "one", batch_tokens=512).score(["prove that the sum", "write a poem"])
    assert rates[0, 0] > 0.7 > 0.3 > rates[1, 0]


def test_only_the_last_layers(tmp_path: Path) -> None:
    """Only the requested last layers and the head change; lower layers and the embeddings keep their weights."""
    base = build_tiny_bert(tmp_path / "base")
    fine_tune_bert([judged(60)], base, tmp_path / "out", seed=0, validation=0.2, layers=1, epochs=1, learning_rate=1e-2)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "out"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert any("layer.1" in name for name in changed)
    assert "classifier.weight" in changed
    assert not any("layer.0" in name or "embeddings" in name for name in changed)


def test_labels_of_one_kind_are_refused(tmp_path: Path) -> None:
    """If all contests end alike, there is nothing to learn: training is refused and writes nothing."""
    easy = judged(60)
    easy = Judged(easy.name, easy.prompts, easy.models, np.ones_like(easy.quality))
    with pytest.raises(InputError, match="prompts end in `tie`; there is nothing to learn"):
        fine_tune_bert([easy], build_tiny_bert(tmp_path / "base"), tmp_path / "out", seed=0, validation=0.2)
    assert not (tmp_path / "out").exists()


def test_a_base_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A folder without an encoder, or with fewer layers than are to be trained, is refused in one line."""
    for base, layers, says in ((tmp_path, None, "base"), (build_tiny_bert(tmp_path / "b"), 3, "of which 3 cannot")):
        with pytest.raises(SpecError, match=says) as refused:
            fine_tune_bert([judged(60)], base, tmp_path / "out", seed=0, validation=0.2, layers=layers)
        assert "\n" not in str(refused.value)


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    """A decoder is refused because `bert` could not score with it: its head finds the last token by padding."""
    base = build_tiny_bert(tmp_path / "base")
    swap_classifier(base, "gpt2", n_embd=32, n_layer=2, n_head=4)
    with pytest.raises(SpecError, match=r"^fine_tuning\.base: .*it is a decoder, of architecture 'gpt2'"):
        fine_tune_bert([judged(60)], base, tmp_path / "out", seed=0, validation=0.2)
    assert not (tmp_path / "out").exists()


def test_an_encoder_with_a_part_missing_is_refused(tmp_path: Path) -> None:
    """Missing encoder weights are refused rather than filled with random ones; a missing head is created anew."""
    base = build_tiny_bert(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    fine_tune_bert([judged(60)], base, tmp_path / "out", seed=0, validation=0.2, epochs=1)
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"hold no bert\.encoder\.layer\.1\.output\.dense\.weight"):
        fine_tune_bert([judged(60)], base, tmp_path / "out", seed=0, validation=0.2)
