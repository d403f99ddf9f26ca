"""Fine-tuning of Llamas with low-rank adapters."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.errors import InputError, SpecError
from batch.routers.causal_llm import CausalLlmRouter, Frame, PromptFiles, load_llama
from batch.training.causal_llm import _Graded, fine_tune_causal_llm
from batch.training.data import Judged
from tests.routers.conftest import PAIR
from tests.routers.tiny_bert import build_tiny_bert
from tests.routers.tiny_causal import QUESTION, SYSTEM, build_tiny_causal

WORDS = ("one", "two", "sum", "the", "of")


def judged(count: int, weak: tuple[float, float] = (0.0, 1.0)) -> Judged:
    """Prompts that begin with "prove" or "write", and how well the weak model answers each kind."""
    chance = random.Random(0)
    kinds = [chance.randrange(2) for _ in range(count)]
    prompts = [f"{('prove', 'write')[kind]} {' '.join(chance.choices(WORDS, k=4))}" for kind in kinds]
    return Judged("made up", prompts, PAIR, np.array([[weak[kind], 1.0] for kind in kinds]))


def train(base: Path, out: Path, data: Judged, epochs: int = 6) -> dict[str, Any]:
    return dict(
        fine_tune_causal_llm(
            [data], base, out, seed=0, validation=0.2, epochs=epochs, learning_rate=1e-2, batch_tokens=2048
        )
    )


def scores(folder: Path) -> list[float]:
    rates = CausalLlmRouter("large", folder, threshold=4, batch_tokens=2048).score(["prove the sum", "write the sum"])
    return [float(rate) for rate in rates[:, 0]]


@pytest.mark.real
def test_a_plain_llama_learns_to_grade(tmp_path: Path) -> None:
    """A base without grades and prompt files becomes a router that separates hard prompts from easy ones."""
    base = build_tiny_causal(tmp_path / "base", bare=True)
    figures = train(base, tmp_path / "one", judged(140))
    assert figures["grades"]["[[1]]"] + figures["grades"]["[[4]]"] == figures["prompts"]
    losses = figures["validation_losses"]
    assert losses[figures["epoch"]] == min(losses) < 0.6
    hard, easy = scores(tmp_path / "one")
    assert hard > 0.8 > 0.2 > easy
    assert {file.suffix for file in (tmp_path / "one").iterdir()} == {".safetensors", ".json", ".txt"}


def test_a_router_goes_on_learning(tmp_path: Path) -> None:
    """A checkpoint of this kind keeps its prompt files, and training it twice gives the same figures and scores."""
    base = build_tiny_causal(tmp_path / "base")
    data = judged(60, weak=(0.5, 1.0))
    figures = train(base, tmp_path / "out", data, epochs=1)
    assert figures["grades"]["[[2]]"] + figures["grades"]["[[4]]"] == figures["prompts"]
    assert (tmp_path / "out" / "system_ft_v5.txt").read_text() == SYSTEM
    assert (tmp_path / "out" / "classifier_ft_v5.txt").read_text() == QUESTION
    assert all(0 < rate < 1 for rate in scores(tmp_path / "out"))
    assert train(base, tmp_path / "again", data, epochs=1) == figures
    assert scores(tmp_path / "again") == scores(tmp_path / "out")


def test_short_steps_are_not_rounded_away(tmp_path: Path) -> None:
    """Adapters of a model in bfloat16 are float32: steps of 2e-5, the last of the default rate, move them."""
    import torch

    base = build_tiny_causal(tmp_path / "base")
    tokenizer, llama = load_llama(base, "bfloat16")
    torch.manual_seed(0)
    frame = Frame(tokenizer, PromptFiles.read(base), int(llama.config.max_position_embeddings))
    graded = _Graded(llama, frame)
    trained = {name: one for name, one in graded.module.named_parameters() if one.requires_grad}
    assert {one.dtype for one in trained.values()} == {torch.float32}
    assert llama.lm_head.weight.dtype == torch.bfloat16
    before = {name: one.detach().clone() for name, one in trained.items()}
    ids = torch.tensor(frame(["prove the sum"]))
    optimizer = torch.optim.AdamW(trained.values(), lr=2e-5)
    for _ in range(3):
        optimizer.zero_grad()
        graded.loss(ids, torch.ones_like(ids), torch.tensor([2])).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    for name, one in trained.items():
        if "lora_" in name:
            assert (one != before[name]).float().mean() > 0.9, name


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    """Labels of one kind and a base that is no Llama are each refused, and nothing is written."""
    base = build_tiny_causal(tmp_path / "base", bare=True)
    with pytest.raises(InputError, match=r"have the grade \[\[4\]\]; there is nothing to learn"):
        train(base, tmp_path / "out", judged(60, weak=(1.0, 1.0)))
    with pytest.raises(SpecError, match="architecture 'bert', not 'llama'"):
        train(build_tiny_bert(tmp_path / "bert"), tmp_path / "out", judged(60))
    assert not (tmp_path / "out").exists()


def test_without_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without peft, training is refused with the command that installs it, before anything is loaded."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SpecError, match="pip install peft"):
        train(tmp_path, tmp_path / "out", judged(60))
