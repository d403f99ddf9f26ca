"""The int8 graph of the packaged encoder, compared with the encoder in float32."""

import numpy as np
import pytest

from batch.routers.checkpoints.encoder_files import encoder_sha256, packaged_encoder
from batch.routers.embedders.int8 import Int8Embedder
from batch.routers.embedders.int8_graph import Shape, bert_weights, encoder_graph, ranges_of, suits_this_machine
from batch.routers.embedders.local import LocalEmbedder

TEXTS = [
    "What is the capital of France?",
    "",
    "Let G be a finite group of order 56. Show that G has a normal Sylow subgroup.",
    "Añade 你好 🎉",
    "word " * 300,
]

needs_int8 = pytest.mark.skipif(
    not suits_this_machine(), reason="no CPU with dot products of bytes, or no ONNX Runtime"
)


@pytest.fixture(scope="module")
def int8() -> Int8Embedder:
    ranges = ranges_of(encoder_sha256(packaged_encoder()), 2)
    assert ranges is not None
    return Int8Embedder(packaged_encoder(), ranges, layer=2, max_tokens=256, batch_tokens=1024, threads=2)


@needs_int8
def test_vectors_are_nearly_those_of_float32(int8: Int8Embedder, embedder: LocalEmbedder) -> None:
    """Each int8 vector has a cosine above .995 with the float32 vector."""
    near, exact = int8.embed(TEXTS), embedder.embed(TEXTS)
    assert (int8.precision, embedder.precision) == ("int8", "float32")
    cosines = (near * exact).sum(1) / np.linalg.norm(near, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosines.min() > 0.995


@needs_int8
def test_neighbours_do_not_matter(int8: Int8Embedder) -> None:
    """A text's vector is the same alone and beside a much longer text: no scale is taken from the batch."""
    alone = np.concatenate([int8.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(int8.embed(TEXTS), alone, rtol=0, atol=1e-5)


@needs_int8
def test_the_graph_in_float32_is_the_encoder(embedder: LocalEmbedder) -> None:
    """Without ranges the graph computes what torch does, so only rounding to int8 makes a difference."""
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(packaged_encoder())(TEXTS[2])["input_ids"]
    graph, _ = encoder_graph(bert_weights(packaged_encoder(), 2), Shape(2, 12, 1e-12), None)
    feed = {"ids": np.array([ids]), "places": np.arange(len(ids))}
    (means,) = InferenceSession(graph, providers=["CPUExecutionProvider"]).run(["means"], feed)
    np.testing.assert_allclose(means, embedder.embed([TEXTS[2]]), rtol=0, atol=1e-5)


def test_only_measured_layers_have_ranges() -> None:
    """The packaged encoder's first two layers have four ranges each; other layers and encoders have none."""
    packaged = encoder_sha256(packaged_encoder())
    assert [len(ranges_of(packaged, layers) or ()) for layers in (0, 1, 2, 3)] == [0, 4, 8, 0]
    assert ranges_of("0" * 64, 2) is None
