"""RouteLLM's matrix factorisation, read from RouteLLM's layout and from this project's own."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.checkpoints.format import CONFIG, WEIGHTS, EncoderConfig, save_checkpoint
from batch.routers.checkpoints.mf_models import MODELS
from batch.routers.embedders.local import LocalEmbedder
from batch.routers.mf import MfRouter, open_factors, pair_of
from batch.routers.registry import build_router, router_fingerprint, trained_encoder
from schemas.embedders import EndpointEmbedderSpec
from schemas.routers import MfRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.routellm_layouts import write_mf
from tests.routers.vectors import NumbersInText, texts

STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct-v0.1"
DIMENSION = 1536
ENDPOINT = EndpointEmbedderSpec(kind="endpoint", model="text-embedding-3-small")


def formula(folder: Path, strong: str, weak: str, prompts: NDArray[np.float32]) -> list[float]:
    """Win rates by the formula, one prompt at a time: the sigmoid of the difference of both models' logits."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in load_file(folder / "model.safetensors").items()}
    projection = next(tensor for name, tensor in tensors.items() if name.startswith("text_proj"))
    classifier = next(tensor for name, tensor in tensors.items() if name.startswith("classifier"))
    both = tensors["P.weight"][[MODELS.index(strong), MODELS.index(weak)]]
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    logits = [((both * (projection @ prompt)) @ classifier.T)[:, 0] for prompt in prompts.astype(np.float64)]
    return [float(1 / (1 + np.exp(lost - won))) for won, lost in logits]


def prompt_vectors(count: int) -> NDArray[np.float32]:
    vectors = np.random.default_rng(1).normal(size=(count, DIMENSION))
    long: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * 3).astype(np.float32)
    return long


def published(folder: Path, **changes: Any) -> MfRouterSpec:
    return MfRouterSpec.model_validate({"kind": "mf", "checkpoint": str(folder), "embedder": ENDPOINT} | changes)


@pytest.mark.parametrize("spelling", ["sequence", "bare"])
@pytest.mark.parametrize(("strong", "weak"), [(STRONG, WEAK), ("RWKV-4-Raven-14B", "zephyr-7b-beta")])
def test_win_rates_are_those_of_the_formula(
    tmp_path: Path, spelling: Literal["sequence", "bare"], strong: str, weak: str
) -> None:
    """Scores equal the formula within 1e-5 on 1,536 numbers a prompt, in both spellings and for any two models."""
    write_mf(tmp_path, DIMENSION, spelling)
    spec = published(tmp_path, strong=strong, weak=weak)
    prompts = prompt_vectors(20)
    scores = MfRouter("large", open_factors(spec), strong, weak, NumbersInText()).score(texts(prompts))
    expected = formula(tmp_path, strong, weak, prompts)
    assert np.ptp(expected) > 0.2
    assert scores.shape == (20, 1)
    np.testing.assert_allclose(scores[:, 0], expected, rtol=0, atol=1e-5)


def test_a_layout_without_projection(tmp_path: Path) -> None:
    """If the weights hold no projection, a prompt's vector, as long as a model's, is used unchanged."""
    write_mf(tmp_path, 8)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["text_proj.0.weight"] = np.eye(8, dtype=np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    prompts = prompt_vectors(3)[:, :8]
    expected = formula(tmp_path, STRONG, WEAK, prompts)
    del tensors["text_proj.0.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    router = MfRouter("large", open_factors(published(tmp_path)), STRONG, WEAK, NumbersInText())
    np.testing.assert_allclose(router.score(texts(prompts))[:, 0], expected, rtol=0, atol=1e-5)


def test_a_local_encoder_is_used_as_its_makers_do(tmp_path: Path) -> None:
    """RouteLLM's layout uses the packaged MiniLM as sentence-transformers does: the last layer, scaled to length 1."""
    write_mf(tmp_path, 384)
    router = build_router(MfRouterSpec(kind="mf", checkpoint=str(tmp_path)), PAIR, seed=0)
    prompts = ["Why is the sky blue?", "Prove that there are infinitely many primes."]
    vectors = LocalEmbedder(packaged_encoder(), layer=6, max_tokens=256, batch_tokens=1024).embed(prompts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert router.models == ("large",)
    expected = formula(tmp_path, STRONG, WEAK, vectors)
    np.testing.assert_allclose(router.score(prompts)[:, 0], expected, rtol=0, atol=1e-5)


def ours(folder: Path, matched_by: Literal["position", "name"] = "name", **encoder: Any) -> Path:
    """Write a checkpoint of this project's layout; the first number favours the middle model, the second the large."""
    config = {"name": "numbers", "layer": 0, "max_tokens": 9, "dimension": 2} | encoder
    save_checkpoint(
        folder,
        {
            "models": np.array([[0, 0, 2], [3, 0, 0], [0, 1, 0]], np.float32),
            "projection": np.array([[1, 0], [0, 1], [0, 0]], np.float32),
            "bias": np.array([0, 0.5, 0.25], np.float32),
            "classifier": np.array([1, 2, 4], np.float32),
        },
        kind="mf",
        models=("small", "middle", "large"),
        matched_by=matched_by,
        encoder=EncoderConfig.model_validate(config),
        options={"models": ["small", "middle", "large"]},
        training={},
        card="",
    )
    return folder


def test_our_layout_by_hand(tmp_path: Path) -> None:
    """Log odds equal values worked out by hand: vectors have length 1, and the bias is added after projecting."""
    factors = open_factors(MfRouterSpec(kind="mf", checkpoint=str(ours(tmp_path))))
    log_odds = {
        ("large", "small"): 2 * (0.8 + 0.5) - 4 * 0.25,
        ("large", "middle"): 2 * (0.8 + 0.5) - 0.6,
        ("middle", "small"): 0.6 - 4 * 0.25,
    }
    for (strong, weak), expected in log_odds.items():
        score = MfRouter("x", factors, strong, weak, NumbersInText()).score(["6 8"])[0, 0]
        assert np.log(score / (1 - score)) == pytest.approx(expected, abs=1e-5)


def test_which_pair_is_compared(tmp_path: Path) -> None:
    """The pair is the one named; if the defaults are unknown, the job's own; by position, the last and the first."""
    named = MfRouterSpec(kind="mf", checkpoint=str(ours(tmp_path / "a")), strong="middle", weak="small")
    unnamed = MfRouterSpec(kind="mf", checkpoint=str(tmp_path / "a"))
    factors = open_factors(unnamed)
    assert pair_of(named, factors, ("middle", "large")) == ("middle", "small")
    assert pair_of(unnamed, factors, ("small", "large", "middle")) == ("middle", "small")
    with pytest.raises(SpecError, match=r"router.strong: the checkpoint knows small, middle, large; 'gpt-4"):
        factors.pair(*pair_of(unnamed, factors, ("tiny", "huge")))
    positioned = open_factors(MfRouterSpec(kind="mf", checkpoint=str(ours(tmp_path / "b", "position"))))
    assert pair_of(unnamed, positioned, ("tiny", "huge")) == ("large", "small")


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """Pickles, other layouts, unknown models and other encoders are each refused in one line that says what to do."""
    folder = tmp_path / "mf"
    write_mf(folder, DIMENSION)
    spec = published(folder)
    pickled, empty, misfit = tmp_path / "pickled", tmp_path / "empty", tmp_path / "misfit"
    for one in (pickled, empty, misfit):
        one.mkdir()
    shutil.copy(folder / "model.safetensors", pickled / "pytorch_model.bin")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"P.weight": tensors["P.weight"][:63]}, misfit / "model.safetensors")
    for changes, message in (
        ({"checkpoint": str(pickled)}, r"pytorch_model.bin, which could run code when loaded; save it as model.safet"),
        ({"checkpoint": str(empty)}, r"holds neither model.safetensors nor weights.safetensors"),
        ({"checkpoint": str(misfit)}, r"holds 63 models; RouteLLM's table names 64"),
        ({"strong": "gpt-5"}, r"router.strong: the checkpoint knows .*; 'gpt-5' is not among them"),
        ({"strong": WEAK}, r"router.strong: mixtral-8x7b-instruct-v0.1 is router.weak too"),
        ({"embedder": {"kind": "local"}}, r"packaged MiniLM have 384 numbers, and the router needs 1536; .*-3-small"),
        (
            {"embedder": ENDPOINT.model_copy(update={"dimensions": 512})},
            r"router.embedder.dimensions: vectors have 512",
        ),
        ({"checkpoint": "nobody/mf"}, r"download it first: hf download nobody/mf$"),
    ):
        with pytest.raises(SpecError, match=message) as refused:
            build_router(MfRouterSpec.model_validate(spec.model_dump() | changes), PAIR, seed=0)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("kind", "named"), [("bfloat16", "BF16"), ("float8_e4m3fn", "F8_E4M3")])
def test_numbers_of_a_type_that_numpy_lacks_are_refused(tmp_path: Path, kind: str, named: str) -> None:
    """RouteLLM's layout saved again in a type that numpy lacks is refused, and the message names the type."""
    import torch
    from safetensors.torch import load_file as load_tensors
    from safetensors.torch import save_file as save_tensors

    write_mf(tmp_path, 8)
    weights = tmp_path / "model.safetensors"
    save_tensors({name: tensor.to(getattr(torch, kind)) for name, tensor in load_tensors(weights).items()}, weights)
    with pytest.raises(SpecError, match=rf"holds numbers of type '{named}'; save float32$"):
        open_factors(published(tmp_path))


def test_numbers_beyond_float32_are_refused(tmp_path: Path) -> None:
    """Such numbers would become infinite; both layouts refuse them."""
    write_mf(tmp_path / "theirs", 8)
    ours(tmp_path / "ours")
    for folder, file, name in (
        (tmp_path / "theirs", "model.safetensors", "P.weight"),
        (tmp_path / "ours", WEIGHTS, "models"),
    ):
        tensors = {key: tensor.astype(np.float64) for key, tensor in load_file(folder / file).items()}
        tensors[name][0, 0] = 1e39
        save_file(tensors, folder / file)
    config = tmp_path / "ours" / CONFIG
    values = json.loads(config.read_text())
    values["weights_sha256"] = sha256((tmp_path / "ours" / WEIGHTS).read_bytes()).hexdigest()
    config.write_text(json.dumps(values))
    for layout, said in (("theirs", r"P\.weight"), ("ours", "models")):
        with pytest.raises(SpecError, match=f"holds numbers in `{said}` that are not finite"):
            open_factors(published(tmp_path / layout))


def test_what_is_known_before_it_is_built(tmp_path: Path) -> None:
    """The encoder is read from our checkpoint or the job; in both layouts the fingerprint changes with the weights."""
    weights = encoder_sha256(packaged_encoder())
    mine = MfRouterSpec(kind="mf", checkpoint=str(ours(tmp_path / "a", sha256=weights)))
    assert trained_encoder(mine).sha256 == weights
    write_mf(tmp_path / "b", 384)
    theirs = published(tmp_path / "b")
    assert trained_encoder(theirs).name == "text-embedding-3-small"
    prints = [router_fingerprint(mine), router_fingerprint(theirs)]
    assert len({*prints, router_fingerprint(published(tmp_path / "b", embedder={"kind": "local"}))}) == 3
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    tensors["P.weight"][0, 0] += 1
    save_file(tensors, tmp_path / "b" / "model.safetensors")
    assert router_fingerprint(theirs) != prints[1]
