"""The encoder of weights that do not name theirs, as RouteLLM's do not: it is taken to be the job's embedder."""

import json
from pathlib import Path
from typing import Any, assert_never

from batch.errors import SpecError
from batch.routers.checkpoints.encoder_files import encoder_folder, encoder_sha256
from batch.routers.checkpoints.format import EncoderConfig
from schemas.embedders import EmbedderSpec, EndpointEmbedderSpec, ImportEmbedderSpec, LocalEmbedderSpec

# Most tokens of text-embedding-3-small, on which RouteLLM's published weights were trained.
_ENDPOINT_TOKENS = 8191
# Most tokens of a sentence encoder that does not say.
_LOCAL_TOKENS = 512

_KEY = "router.embedder"


def assumed_encoder(spec: EmbedderSpec, dimension: int) -> EncoderConfig:
    """Return the encoder of `spec`, whose vectors must have `dimension` numbers; a local one gives its last layer.

    Raises SpecError if its vectors have another length, or if a local encoder's configuration does not say.
    """
    match spec:
        case LocalEmbedderSpec():
            folder = encoder_folder(spec.model)
            config = _json(folder / "config.json")
            layers, own = config.get("num_hidden_layers"), config.get("hidden_size")
            if not isinstance(layers, int) or not isinstance(own, int):
                raise SpecError(f"{_KEY}.model: {folder / 'config.json'} names no num_hidden_layers and hidden_size")
            name = spec.model or "the packaged MiniLM"
            _check(own, dimension, f"{_KEY}: vectors of {name}")
            file = folder / "sentence_bert_config.json"
            longest = _json(file).get("max_seq_length") if file.exists() else None
            return EncoderConfig(
                name=name,
                sha256=encoder_sha256(folder),
                layer=layers,
                max_tokens=longest or _LOCAL_TOKENS,
                dimension=dimension,
            )
        case EndpointEmbedderSpec():
            _check(spec.dimensions or dimension, dimension, f"{_KEY}.dimensions: vectors")
            return EncoderConfig(kind="endpoint", name=spec.model, max_tokens=_ENDPOINT_TOKENS, dimension=dimension)
        case ImportEmbedderSpec():
            return EncoderConfig(kind="import", name=spec.path, dimension=dimension)
        case _:
            assert_never(spec)


def normalizes_vectors(spec: EmbedderSpec) -> bool:
    """Do the encoder's own modules scale vectors to length 1 at the end? `LocalEmbedder` leaves that step out."""
    if not isinstance(spec, LocalEmbedderSpec):
        return False
    modules = encoder_folder(spec.model) / "modules.json"
    return modules.exists() and any(str(m.get("type", "")).endswith(".Normalize") for m in _json(modules))


def assumed_fingerprint(spec: EmbedderSpec) -> str:
    """SHA-256 of a local encoder's weights; empty for others. Raises SpecError if the weights are missing."""
    return encoder_sha256(encoder_folder(spec.model)) if isinstance(spec, LocalEmbedderSpec) else ""


def _check(own: int, dimension: int, whose: str) -> None:
    if own != dimension:
        raise SpecError(
            f"{whose} have {own} numbers, and the router needs {dimension}; give the embedder it was trained on, "
            "which for RouteLLM's own is `kind: endpoint` with `model: text-embedding-3-small`"
        )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpecError(f"{_KEY}.model: cannot read {path}: {error}") from error
