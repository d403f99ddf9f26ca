"""RouteLLM's BERT router, compared with its formula applied to one prompt at a time."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from batch.errors import SpecError
from batch.routers.bert import BertRouter, token_limit
from batch.routers.checkpoints.format import DEFAULT_CHECKPOINT
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.network.pretrained import folder_fingerprint
from batch.routers.registry import build_router, router_fingerprint
from schemas.routers import BertRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.tiny_bert import POSITIONS, build_tiny_bert, build_tiny_xlmr, swap_classifier

PROMPTS = [
    "what is the capital of france?",
    "prove that the sum of two numbers is 7",
    "",
    "write a poem",
    "word " * 200,
    "why, why? and how to write 99 theorems in 123 words",
    "Añade 你好 🎉",
]


@pytest.fixture(scope="module", params=[build_tiny_bert, build_tiny_xlmr], ids=["bert", "xlm-roberta"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    build: Callable[[Path], Path] = request.param
    return build(tmp_path_factory.mktemp("bert"))


def one_at_a_time(folder: Path, prompts: list[str]) -> NDArray[np.float32]:
    """1 - (p(tie) + p(weak wins)) of each prompt alone, without padding, through transformers' public classes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    rates = []
    for prompt in prompts:
        with torch.inference_mode():
            logits = model(**tokenizer(prompt, truncation=True, return_tensors="pt")).logits[0]
        rates.append(1 - float(torch.softmax(logits, 0)[1:].sum()))
    return np.array(rates, dtype=np.float32)[:, None]


def test_win_rates_are_those_of_the_formula(folder: Path) -> None:
    """Batched win rates equal RouteLLM's formula applied to one prompt at a time, within 1e-5, and they differ."""
    router = build_router(BertRouterSpec(kind="bert", checkpoint=str(folder), batch_tokens=150), PAIR, seed=0)
    assert router.models == ("large",)
    wanted = one_at_a_time(folder, PROMPTS)
    assert np.ptp(wanted) > 0.1
    np.testing.assert_allclose(router.score(PROMPTS), wanted, rtol=0, atol=1e-5)


def test_long_prompts_end_where_the_model_does(folder: Path) -> None:
    """Tokens beyond the model's positions do not change the score."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    beginning = "prove the theorem " * 30
    wanted = BertRouter("large", folder, batch_tokens=4096).score([beginning])
    assert len(tokenizer(beginning)["input_ids"]) > tokenizer.model_max_length
    np.testing.assert_allclose(
        BertRouter("large", folder, batch_tokens=4096).score([beginning + "why? " * 10_000]), wanted, rtol=0, atol=1e-5
    )


def test_a_tokenizer_without_a_limit(folder: Path, tmp_path: Path) -> None:
    """If the tokenizer's configuration names no limit, the model's positions are the limit."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "tokenizer_config.json").write_text(
        (copy / "tokenizer_config.json").read_text().replace('"model_max_length": 64', '"model_max_length": 1e30')
    )
    np.testing.assert_allclose(
        BertRouter("large", copy, batch_tokens=4096).score(PROMPTS), one_at_a_time(folder, PROMPTS), rtol=0, atol=1e-5
    )


def test_a_configuration_that_asks_for_tuples(folder: Path, tmp_path: Path) -> None:
    """`return_dict: false` in the configuration changes neither scores nor the use as an encoder."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"return_dict": False}))
    wanted = BertRouter("large", folder, batch_tokens=4096).score(PROMPTS)
    np.testing.assert_array_equal(BertRouter("large", copy, batch_tokens=4096).score(PROMPTS), wanted)
    assert LocalEmbedder(copy, layer=1, max_tokens=8, batch_tokens=64).embed(PROMPTS).any()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("funnel", {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1]}),
        ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    ],
)
def test_architectures_that_name_no_positions(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """Funnel's configuration has no such number, and XLNet's is -1: the tokenizer's limit is the limit."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    swap_classifier(build_tiny_bert(tmp_path), kind, **options)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert token_limit(AutoTokenizer.from_pretrained(tmp_path), classifier) == POSITIONS


def test_other_labels_are_refused(tmp_path: Path) -> None:
    """A classifier of two labels is refused in one line: its win rate would be read from the wrong label."""
    build_tiny_bert(tmp_path, labels=2)
    with pytest.raises(SpecError, match=r"hold classifier\.bias of shape \(2,\), not \(3,\)") as refused:
        BertRouter("large", tmp_path, batch_tokens=64)
    assert "\n" not in str(refused.value)


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("llama", SIZES),
        ("mistral", SIZES),
        ("mistral4", {}),  # in neither of transformers' two tables; it is refused before anything is built of it
        ("qwen2", SIZES),
        ("modernbert-decoder", SIZES),
        ("bert", SIZES | {"is_decoder": True}),
        ("t5", {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
        ("xlnet", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    ],
)
def test_decoders_are_refused(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """A decoder's head finds the last token by its model's own padding, so scores would depend on the batch."""
    swap_classifier(build_tiny_bert(tmp_path), kind, built=kind != "mistral4", **options)
    with pytest.raises(SpecError, match=rf"cannot be loaded: it is a decoder, of architecture '{kind}'") as refused:
        BertRouter("large", tmp_path, batch_tokens=64)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("roberta", SIZES | {"max_position_embeddings": POSITIONS + 1}),
        ("distilbert", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}),
        ("deberta-v2", SIZES),
        ("electra", SIZES),
        ("albert", SIZES | {"embedding_size": 32}),
        ("modernbert", SIZES | {"global_attn_every_n_layers": 1}),
    ],
)
def test_encoders_of_all_kinds_are_taken(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    """A prompt has the same score in a batch and alone."""
    swap_classifier(build_tiny_bert(tmp_path), kind, **options)
    router = BertRouter("large", tmp_path, batch_tokens=4096)
    alone = np.concatenate([router.score([prompt]) for prompt in PROMPTS])
    np.testing.assert_allclose(router.score(PROMPTS), alone, rtol=0, atol=1e-5)


def test_an_encoder_without_a_classifier_is_refused(tmp_path: Path) -> None:
    """Weights without the classifier's are refused, because transformers would draw random ones."""
    from transformers import AutoModel

    build_tiny_bert(tmp_path)
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"its weights hold no classifier\.bias and 1 more"):
        BertRouter("large", tmp_path, batch_tokens=64)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    """Weights in torch's own format, which runs code when read, are refused; the message names safetensors."""
    build_tiny_bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SpecError, match="cannot be loaded"):
        BertRouter("large", tmp_path, batch_tokens=64)
    with pytest.raises(SpecError, match="holds no weights in safetensors format"):
        router_fingerprint(BertRouterSpec(kind="bert", checkpoint=str(tmp_path)))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    """A file of weights that was cut off is refused in one line."""
    weights = build_tiny_bert(tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(SpecError, match="cannot be loaded: its weights are damaged") as refused:
        BertRouter("large", tmp_path, batch_tokens=64)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    """transformers would make up a tokenizer without words, and all words would count as unknown."""
    build_tiny_bert(tmp_path)
    for file in tmp_path.glob("token*"):
        file.unlink()
    with pytest.raises(SpecError, match=r"holds no tokenizer: none of tokenizer\.json"):
        BertRouter("large", tmp_path, batch_tokens=64)


def test_a_checkpoint_that_is_not_here() -> None:
    """A hub id that was not downloaded is refused with the command that fetches it."""
    with pytest.raises(SpecError, match="hf download nobody/no-such-bert"):
        build_router(BertRouterSpec(kind="bert", checkpoint="nobody/no-such-bert"), PAIR, seed=0)


def test_a_checkpoint_of_another_kind() -> None:
    """A checkpoint that `batchrouter train` made for another kind is named as such, by the file that it holds."""
    with pytest.raises(SpecError, match=r"is not for a router of kind 'bert': it holds weights\.safetensors$"):
        build_router(BertRouterSpec(kind="bert", checkpoint=str(DEFAULT_CHECKPOINT)), PAIR, seed=0)


def test_a_folder_that_is_not_here(tmp_path: Path) -> None:
    """A path is not taken for a hub id, because nothing could be downloaded."""
    file = tmp_path / "a file"
    file.touch()
    for path, reason in ((tmp_path / "nowhere", "no such folder"), (file, "not a folder")):
        with pytest.raises(SpecError, match=rf"^router\.checkpoint: {path}: {reason}$"):
            build_router(BertRouterSpec(kind="bert", checkpoint=str(path)), PAIR, seed=0)


def test_the_fingerprint_goes_by_content(folder: Path, tmp_path: Path) -> None:
    """The fingerprint is the same for a copy, whatever other files it has, and changes with the tokenizer."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "optimizer.pt").write_bytes(b"not read")
    assert folder_fingerprint(copy, "k") == folder_fingerprint(folder, "k")
    with (copy / "tokenizer.json").open("a") as vocabulary:
        vocabulary.write(" ")
    assert folder_fingerprint(copy, "k") != folder_fingerprint(folder, "k")


def test_the_hubs_own_hashes_serve(tmp_path: Path) -> None:
    """In the hub's cache a file's name is its hash, and the fingerprint takes it instead of reading large weights."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blobs / ("a" * 64))
    (blobs / ("a" * 64)).write_bytes(b"one")
    first = folder_fingerprint(snapshot, "k")
    (blobs / ("a" * 64)).write_bytes(b"two")
    assert folder_fingerprint(snapshot, "k") == first
    (blobs / ("b" * 64)).write_bytes(b"two")
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(blobs / ("b" * 64))
    assert folder_fingerprint(snapshot, "k") != first
