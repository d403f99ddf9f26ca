"""The int8 embedder: how it tokenizes and batches texts, and on which machines it is chosen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.embedders import int8 as int8_embedder
from batch.routers.embedders import int8_graph as int8_encoder
from batch.routers.embedders.int8 import Int8Embedder
from batch.routers.embedders.int8_graph import ranges_of, suits_this_machine
from tests.routers.embedders.test_int8_graph import needs_int8

_SPY = """
import sys
from batch.routers.registry import build_router
from schemas.routers import CorrectnessRouterSpec

build_router(CorrectnessRouterSpec(), ("small", "large"), seed=0).score(["What is the capital of France?"])
assert not {"torch", "transformers"} & set(sys.modules)
"""


def build(folder: Path, threads: int | None = None, batch_tokens: int = 16_384) -> Int8Embedder:
    ranges = ranges_of(encoder_sha256(packaged_encoder()), 2)
    assert ranges is not None
    return Int8Embedder(folder, ranges, layer=2, max_tokens=256, batch_tokens=batch_tokens, threads=threads)


@needs_int8
def test_more_tokens_than_the_encoder_takes_are_refused() -> None:
    """The limit is checked when the embedder is built, as in float32, and not in the middle of a run."""
    ranges = ranges_of(encoder_sha256(packaged_encoder()), 2)
    assert ranges is not None
    with pytest.raises(SpecError, match="it takes 512 tokens, not 513"):
        Int8Embedder(packaged_encoder(), ranges, layer=2, max_tokens=513, batch_tokens=4096, threads=1)


@needs_int8
def test_the_default_router_scores_without_torch() -> None:
    """Scoring imports neither torch nor transformers, which would take four times as long as the rest of loading."""
    subprocess.run([sys.executable, "-c", _SPY], check=True, timeout=120)


@needs_int8
def test_vectors_are_in_the_order_of_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each text gets its own vector, whatever the chunks, batches and threads."""
    texts = ["word " * (i % 7) + "and more " * (i % 3) for i in range(40)]
    one = build(packaged_encoder(), threads=1)
    alone = np.concatenate([one.embed([text]) for text in texts])
    np.testing.assert_allclose(build(packaged_encoder()).embed(texts), alone, rtol=0, atol=1e-5)
    monkeypatch.setattr(int8_embedder, "_CHUNK", 9)
    np.testing.assert_allclose(build(packaged_encoder(), 3, 30).embed(texts), alone, rtol=0, atol=1e-5)
    assert one.embed([]).shape == (0, 384)


def test_a_file_that_is_missing_or_of_another_kind_is_named(tmp_path: Path) -> None:
    """An encoder without its tokenizer or with a wrong configuration is refused by the name of the file."""
    with pytest.raises(SpecError, match=r"router\.embedder\.model: cannot read .*tokenizer\.json"):
        build(tmp_path)
    shutil.copy(packaged_encoder() / "tokenizer.json", tmp_path)
    with pytest.raises(SpecError, match=r"router\.embedder\.model: cannot read .*config\.json: No such file"):
        build(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 384}))
    with pytest.raises(SpecError, match=r"config\.json is no configuration of BERT's: 'num_attention_heads'"):
        build(tmp_path)


@needs_int8
def test_a_gpu_that_torch_sees_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Torch is asked for a GPU only if the system shows a GPU's device; int8 gives way if torch sees one."""
    import torch

    asked: list[str] = []

    def device() -> torch.device:
        asked.append("torch")
        return torch.device("cuda")

    monkeypatch.setattr(int8_encoder, "device", device)
    monkeypatch.setattr(int8_encoder, "_DEVICES", tmp_path)
    assert suits_this_machine()
    assert asked == []
    (tmp_path / "nvidia0").touch()
    assert not suits_this_machine()
