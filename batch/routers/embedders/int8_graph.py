"""The first layers of a BERT encoder in eight bits, for CPUs: an ONNX graph built from its weights in memory.

Only the matrix products are int8: their weights have a scale per column, their inputs (activations) a scale per product
that was measured beforehand, on real prompts. Dynamic quantisation, which takes scales from the batch at hand, would
make a prompt's vector depend on its neighbours (by .03). Everything else, such as attention and norms, stays float32.

All prompts of a batch have the same number of tokens: there is no padding, and attention without a mask is a tenth
faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Int64s
from batch.routers.network.forward import device

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_FUSED = "com.microsoft"
_OPSET, _IR_VERSION = 17, 10

# This optimizer of ONNX Runtime fuses sum and norm into one operator, which takes four times as long as the two.
_SLOW = "SkipLayerNormFusion"

_CPUINFO = Path("/proc/cpuinfo")
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
# Devices by which Linux shows GPUs: NVIDIA's cards and boards, those behind WSL, and AMD's. If none is there, torch
# need not be imported to look for a GPU, which takes longer than building the graph.
_DEVICES = Path("/dev")
_GPUS = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")

# Smallest and largest input of each product, over 320 prompts of MMLU, GSM8K and MT-Bench; values beyond are clipped.
_MEASURED: dict[str, Sequence[tuple[float, float]]] = {
    # all-MiniLM-L6-v2, four products a layer: of queries, keys and values; after attention; wide; narrow again
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db": (
        *((-2.92, 6.33), (-3.3, 2.51), (-6.59, 28.53), (-0.17, 24.79)),
        *((-4.95, 8.14), (-3.19, 3.19), (-7.54, 30.36), (-0.17, 20.4)),
    ),
}

Ranges = Sequence[tuple[float, float]]
Weights = Mapping[str, Float32s]


@dataclass(frozen=True)
class Shape:
    """What a BERT's configuration says about its graph, and its weights alone do not."""

    layers: int
    heads: int
    epsilon: float


@dataclass
class _Graph:
    """Collects the nodes and constants of a graph. With `ranges` its products are int8, without them float32."""

    ranges: Ranges | None
    nodes: "list[NodeProto]" = field(default_factory=list)
    constants: "list[TensorProto]" = field(default_factory=list)
    products: list[str] = field(default_factory=list)
    """Names of the inputs of the products, in order."""

    def constant(self, array: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, *inputs: str, fused: bool = False, outputs: int = 1, **attributes: object) -> list[str]:
        from onnx import helper

        names = [f"n{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, domain=_FUSED if fused else "", **attributes))
        return names

    def product(self, inputs: str, weight: Float32s, bias: Float32s) -> str:
        """`inputs @ weight.T + bias`."""
        place = len(self.products)
        self.products.append(inputs)
        if self.ranges is None:
            return self.node("Add", *self.node("MatMul", inputs, self.constant(weight.T)), self.constant(bias))[0]
        low, high = self.ranges[place]
        step = (high - low) / 255.0
        scale = self.constant(np.array(step, dtype=np.float32))
        zero = self.constant(np.array(np.clip(np.rint(-low / step), 0, 255), dtype=np.uint8))
        columns = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127.0)
        whole = np.rint(weight / columns[:, None]).astype(np.int8).T
        rounded = self.node("QuantizeLinear", inputs, scale, zero)[0]
        others = (self.constant(columns), zero, self.constant(np.zeros(len(columns), np.int8)), self.constant(bias))
        return self.node("MatMulIntegerToFloat", rounded, self.constant(whole), scale, *others, fused=True)[0]

    def norm(self, summed: str, weight: Float32s, bias: Float32s, epsilon: float) -> str:
        constants = self.constant(weight), self.constant(bias)
        return self.node("LayerNormalization", summed, *constants, axis=-1, epsilon=epsilon)[0]


def encoder_graph(weights: Weights, shape: Shape, ranges: Ranges | None) -> tuple[bytes, tuple[str, ...]]:
    """Return the serialised graph, and the names of the inputs of its products, in order.

    The graph takes `ids`, int64 of shape (prompts, tokens), and `places`, int64 of shape (tokens,), the numbers from 0.
    It gives `means`, float32 of shape (prompts, dimension): the mean of the last layer's hidden states over the tokens.
    Without `ranges` it also gives the inputs of all products, for measuring ranges.
    """
    graph = _Graph(ranges)
    words = graph.node("Gather", graph.constant(weights["embeddings.word_embeddings.weight"]), "ids")[0]
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    table = graph.constant(weights["embeddings.position_embeddings.weight"] + kind)
    places = graph.node("Gather", table, "places")[0]
    summed = graph.node("Add", words, places)[0]
    norm = weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"]
    hidden = graph.norm(summed, *norm, shape.epsilon)
    for layer in range(shape.layers):
        hidden = _layer(graph, weights, f"encoder.layer.{layer}", hidden, shape)
    graph.node("ReduceMean", hidden, axes=[1], keepdims=0)
    graph.nodes[-1].output[0] = "means"
    return _serialised(graph), tuple(graph.products)


def _layer(graph: _Graph, weights: Weights, prefix: str, hidden: str, shape: Shape) -> str:
    def named(name: str) -> tuple[Float32s, Float32s]:
        return weights[f"{prefix}.{name}.weight"], weights[f"{prefix}.{name}.bias"]

    parts = [named(f"attention.self.{part}") for part in ("query", "key", "value")]
    stacked = np.concatenate([weight for weight, _ in parts]), np.concatenate([bias for _, bias in parts])
    sizes = graph.constant(np.array([len(bias) for _, bias in parts], dtype=np.int64))
    split = graph.node("Split", graph.product(hidden, *stacked), sizes, outputs=3, axis=-1)
    seen = graph.node("MultiHeadAttention", *split, fused=True, num_heads=shape.heads)[0]
    out = graph.product(seen, *named("attention.output.dense"))
    hidden = graph.norm(graph.node("Add", out, hidden)[0], *named("attention.output.LayerNorm"), shape.epsilon)
    wide = graph.node("Gelu", graph.product(hidden, *named("intermediate.dense")), fused=True)[0]
    out = graph.product(wide, *named("output.dense"))
    return graph.norm(graph.node("Add", out, hidden)[0], *named("output.LayerNorm"), shape.epsilon)


def _serialised(graph: _Graph) -> bytes:
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, ["prompts", "tokens"]),
        helper.make_tensor_value_info("places", TensorProto.INT64, ["tokens"]),
    ]
    outputs = [helper.make_tensor_value_info("means", TensorProto.FLOAT, None)]
    if graph.ranges is None:
        outputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in graph.products]
    made = helper.make_graph(graph.nodes, "encoder", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
    serialised: bytes = helper.make_model(made, opset_imports=opsets, ir_version=_IR_VERSION).SerializeToString()
    return serialised


class Int8Encoder:
    """From token ids to means of the hidden states after a layer, on the CPU, in int8.

    A call runs in the caller's thread and releases the interpreter lock meanwhile. Two threads that run batches of
    their own are faster than two that share each product and wait for one another.
    """

    def __init__(self, weights: Weights, shape: Shape, ranges: Ranges) -> None:
        """Build the graph, which takes a second.

        Args:
            ranges: smallest and largest input of each product, four products a layer.
        """
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = 1
        # Shapes change from batch to batch, and ONNX Runtime would keep a memory plan for each of them.
        options.enable_mem_pattern = False
        self._run = InferenceSession(
            encoder_graph(weights, shape, ranges)[0],
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[_SLOW],
        ).run

    def __call__(self, ids: Int64s) -> Float32s:
        """Return means of shape (prompts, dimension); `ids` is (prompts, tokens), without padding."""
        means: Float32s = self._run(["means"], {"ids": ids, "places": np.arange(ids.shape[1], dtype=np.int64)})[0]
        return means


def ranges_of(sha256: str, layers: int) -> Ranges | None:
    """The measured ranges of the encoder whose weights have this SHA-256; `None` if they were not measured."""
    measured = _MEASURED.get(sha256, ())
    return measured[: 4 * layers] if 0 < 4 * layers <= len(measured) else None


def suits_this_machine() -> bool:
    """Is int8 the fastest choice here, and free of overflow?

    It is if torch has no GPU, the CPU has dot products of bytes, and ONNX Runtime is installed. CPUs without such
    instructions multiply bytes in pairs, whose sum may overflow.
    """
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        return False
    if any(found for name in _GPUS for found in _DEVICES.glob(name)) and device().type == "cuda":
        return False
    try:
        flags = set(_CPUINFO.read_text().split())
    except OSError:
        return False
    return not flags.isdisjoint(_DOT_PRODUCTS)


def bert_weights(folder: Path, layers: int) -> Weights:
    """The weights that the graph needs, in float32, from the `model.safetensors` of a BERT with enough layers."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="np") as stored:
        names = {name.removeprefix("bert."): name for name in stored.keys()}  # noqa: SIM118 - it is no mapping
        wanted = [
            name
            for name in names
            if name.startswith("embeddings.") or any(name.startswith(f"encoder.layer.{i}.") for i in range(layers))
        ]
        return {
            name: stored.get_tensor(names[name]).astype(np.float32)
            for name in wanted
            if not name.endswith("position_ids")
        }
