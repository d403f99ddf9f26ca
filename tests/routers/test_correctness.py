"""The default router: an encoder, a checkpoint and logistic heads."""

import json
import shutil
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from batch.errors import SpecError
from batch.routers.base import Router
from batch.routers.checkpoints.encoder_files import encoder_folder, encoder_sha256, packaged_encoder
from batch.routers.checkpoints.format import (
    CONFIG,
    DEFAULT_CHECKPOINT,
    WEIGHTS,
    Checkpoint,
    CheckpointConfig,
    EncoderConfig,
    checkpoint_fingerprint,
    load_checkpoint,
    save_checkpoint,
)
from batch.routers.correctness import CorrectnessRouter
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.registry import build_router
from schemas.embedders import LocalEmbedderSpec
from schemas.routers import CorrectnessRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.tiny_bert import POSITIONS, build_tiny_xlmr

EASY = "What is the capital of France?"
HARD = (
    "Let G be a finite group acting transitively on a set of prime power size. Which of these statements is true of "
    "its Sylow subgroups?\nA. They act regularly\nB. They act transitively\nC. They are normal\nD. None\nAnswer:"
)


class FirstLetters:
    """Embeds a text as the character codes of its first two letters, divided by ten."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[ord(c) / 10 for c in text[:2]] for text in texts], dtype=np.float32).reshape(-1, 2)


def checkpoint(*heads: str, matched_by: str) -> Checkpoint:
    """The first head reads the first letter, the second head the second, a third head their sum."""
    encoder = EncoderConfig(name="letters", sha256="", layer=1, max_tokens=2, dimension=2)
    values = {"models": heads, "matched_by": matched_by, "encoder": encoder, "weights_sha256": ""}
    config = CheckpointConfig.model_validate(values)
    weight = np.array([[1, 0], [0, 1], [1, 1]], dtype=np.float32)[: len(heads)]
    return Checkpoint(config, {"weight": weight, "bias": np.full(len(heads), -6.5, dtype=np.float32)})


def logit(probability: NDArray[np.float32]) -> NDArray[np.float32]:
    odds: NDArray[np.float32] = probability / (1 - probability)
    return np.log(odds)


def test_probabilities_of_both_models(correctness: Router) -> None:
    """Each column is a probability, and the strong model gains more on an exam in group theory than on a capital."""
    scores = correctness.score([EASY, HARD])
    assert correctness.models == PAIR
    assert ((scores > 0) & (scores < 1)).all()
    gain = scores[:, 1] - scores[:, 0]
    assert gain[1] > gain[0]


def test_long_prompts_end_at_256_tokens(embedder: LocalEmbedder) -> None:
    """Text beyond the first 256 tokens does not change the vector, however long it is."""
    beginning = "word " * 300
    vectors = embedder.embed([beginning, beginning + "something else " * 100_000])
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-5)


def test_the_first_layers_are_those_of_the_whole_encoder(embedder: LocalEmbedder) -> None:
    """The encoder without its upper layers gives the hidden states that the whole encoder has after layer 2."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = packaged_encoder()
    whole = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        tokens = AutoTokenizer.from_pretrained(folder)([EASY], return_tensors="pt")
        states = whole(**tokens, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(embedder.embed([EASY])[0], states[2][0].mean(0).numpy(), rtol=0, atol=1e-5)


def test_models_in_between_lie_between_the_heads() -> None:
    """Matched by position, the ends have the two heads, and a model in between has the mean of their log odds."""
    router = CorrectnessRouter(("s", "m", "l"), checkpoint("weak", "strong", matched_by="position"), FirstLetters())
    log_odds = logit(router.score(["AZ", "ab"]))
    np.testing.assert_allclose(log_odds[:, 1], (log_odds[:, 0] + log_odds[:, 2]) / 2, atol=1e-5)
    np.testing.assert_allclose(log_odds[0, [0, 2]], [0.0, 2.5], atol=1e-5)


def test_named_heads_go_by_name() -> None:
    """Matched by name, each of the job's models has its own head, and a name without a head is refused."""
    named = checkpoint("a", "b", "c", matched_by="name")
    log_odds = logit(CorrectnessRouter(("b", "a"), named, FirstLetters()).score(["AZ"]))
    np.testing.assert_allclose(log_odds[0], [2.5, 0.0], atol=1e-5)
    with pytest.raises(SpecError, match="trained on a, b, c; 'd' is not among them"):
        CorrectnessRouter(("a", "d"), named, FirstLetters())


def test_the_shipped_checkpoint_is_small_and_fits_the_packaged_encoder() -> None:
    """The shipped checkpoint is below a megabyte and names the encoder that is installed."""
    shipped = load_checkpoint()
    assert sum(file.stat().st_size for file in DEFAULT_CHECKPOINT.iterdir()) < 1_000_000
    assert shipped.config.encoder.sha256 == encoder_sha256(packaged_encoder())
    assert shipped.config.matched_by == "position"


def test_saved_is_loaded(tmp_path: Path) -> None:
    """A checkpoint comes back as it was saved, and its fingerprint changes with its weights."""
    first = checkpoint("a", "b", matched_by="name")
    for folder, scale in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        save_checkpoint(
            folder,
            {"weight": first.tensors["weight"] * np.float32(scale), "bias": first.tensors["bias"]},
            models=("a", "b"),
            matched_by="name",
            encoder=first.config.encoder,
            training={"seed": 3},
            card="# Card\n",
        )
    loaded = load_checkpoint(tmp_path / "one")
    np.testing.assert_array_equal(loaded.tensors["weight"], first.tensors["weight"])
    assert loaded.config.training == {"seed": 3}
    assert checkpoint_fingerprint(tmp_path / "one") != checkpoint_fingerprint(tmp_path / "two")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEFAULT_CHECKPOINT, tmp_path / "copy"))


def change(folder: Path, **values: object) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | values))


def test_a_checkpoint_that_was_altered_is_refused(copy: Path) -> None:
    """Weights whose hash is not the one in `config.json` are not loaded."""
    save_file({"weight": np.zeros((2, 384), np.float32), "bias": np.zeros(2, np.float32)}, copy / WEIGHTS)
    with pytest.raises(SpecError, match="is not the file that"):
        load_checkpoint(copy)


def test_numbers_of_a_type_that_numpy_lacks_are_refused(copy: Path) -> None:
    """A checkpoint saved again in bfloat16 is refused, and the message names the type."""
    import torch
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file as save_tensors

    save_tensors({k: v.to(torch.bfloat16) for k, v in load_tensors(copy / WEIGHTS).items()}, copy / WEIGHTS)
    change(copy, weights_sha256=sha256((copy / WEIGHTS).read_bytes()).hexdigest())
    with pytest.raises(SpecError, match="holds numbers of type 'BF16'; save float32"):
        load_checkpoint(copy)


def test_an_encoder_whose_weights_are_of_another_network_is_refused(tmp_path: Path) -> None:
    """transformers would draw the missing weights at random, so the vectors would mean nothing."""
    folder = Path(shutil.copytree(packaged_encoder(), tmp_path / "encoder"))
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.0.attention" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpecError, match=r"its weights hold no .*layer\.0\.attention.* and \d+ more"):
        LocalEmbedder(folder, layer=1, max_tokens=8, batch_tokens=8)


def test_a_checkpoint_of_another_shape_is_refused(copy: Path) -> None:
    """Heads that do not match the configuration's models are refused."""
    change(copy, models=["a", "b", "c"])
    with pytest.raises(SpecError, match=r"holds `weight` of shape \(2, 512\), not \(3, 512\)"):
        build_router(CorrectnessRouterSpec(checkpoint=str(copy)), PAIR, seed=0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"format": 2}, "format: Input should be 1"),
        ({"pickle": "x"}, "pickle: Extra inputs"),
        ({"models": 1}, "models: "),
    ],
)
def test_a_broken_config_is_refused(copy: Path, values: dict[str, object], says: str) -> None:
    """A configuration of another format or with unknown keys is refused in one line that names the key."""
    change(copy, **values)
    with pytest.raises(SpecError, match=says) as refused:
        load_checkpoint(copy)
    assert "\n" not in str(refused.value)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    """The message names the folder and the missing file."""
    with pytest.raises(SpecError, match=r"cannot read .*config\.json: No such file"):
        build_router(CorrectnessRouterSpec(checkpoint=str(tmp_path)), PAIR, seed=0)


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    """Heads are not used on vectors of an encoder that they were not trained on."""
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    spec = CorrectnessRouterSpec(embedder=LocalEmbedderSpec(model=str(tmp_path)))
    with pytest.raises(SpecError, match="is not the encoder that the checkpoint was trained on"):
        build_router(spec, PAIR, seed=0)


def test_an_encoder_without_safetensors_is_refused(tmp_path: Path) -> None:
    """A folder without weights in safetensors format is refused; no other format is tried."""
    spec = CorrectnessRouterSpec(embedder=LocalEmbedderSpec(model=str(tmp_path)))
    with pytest.raises(SpecError, match=r"cannot read .*model\.safetensors"):
        build_router(spec, PAIR, seed=0)


def test_nothing_is_downloaded() -> None:
    """An encoder that is not on this machine is refused with the command that fetches it."""
    with pytest.raises(SpecError, match="hf download nobody/no-such-encoder"):
        encoder_folder("nobody/no-such-encoder")


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    """A layer that the encoder does not have is refused, because its weights would be random."""
    with pytest.raises(SpecError, match="it has 6 layers, not 7"):
        LocalEmbedder(packaged_encoder(), layer=7, max_tokens=8, batch_tokens=8)


def test_more_tokens_than_there_are_positions(tmp_path: Path) -> None:
    """The limit is checked when the encoder is loaded; RoBERTa takes fewer tokens than its configuration says."""
    assert LocalEmbedder(packaged_encoder(), layer=1, max_tokens=512, batch_tokens=512).embed(["word " * 600]).any()
    for folder, most in ((packaged_encoder(), 512), (build_tiny_xlmr(tmp_path), POSITIONS)):
        with pytest.raises(SpecError, match=rf"cannot be loaded: it takes {most} tokens, not {most + 1}$"):
            LocalEmbedder(folder, layer=1, max_tokens=most + 1, batch_tokens=8)
