"""Trained heads on disk: `config.json`, `heads.safetensors` and a model card, in one folder.

Only safetensors and JSON are read, so a checkpoint from anywhere can be loaded without running its code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from batch.errors import SpecError
from schemas.base import Spec

CONFIG, HEADS, CARD = "config.json", "heads.safetensors", "README.md"
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "correctness"


class EncoderConfig(Spec):
    """The encoder the heads were trained on, and how it is used."""

    kind: Literal["local", "endpoint"] = "local"
    """Does it run in the scoring process, or behind `/v1/embeddings`?"""
    name: str
    """What people call it; behind an endpoint, the model that is asked for."""
    sha256: str = ""
    """Of its weights: other weights would give numbers that look right and are not. Of an endpoint's nobody knows."""
    layer: int | None = Field(default=None, gt=0)
    """Hidden states after this layer are averaged over the tokens; an endpoint's encoder has only its own end."""
    max_tokens: int = Field(gt=0)
    """Tokens of a prompt that are looked at, from its beginning."""
    dimension: int = Field(gt=0)
    """Length of its vectors."""

    @model_validator(mode="after")
    def _known_as_its_kind_is(self) -> "EncoderConfig":
        if self.kind == "local" and self.layer is None:
            raise ValueError("a local encoder needs a layer")
        if self.kind == "endpoint" and (self.layer is not None or self.sha256):
            raise ValueError("an encoder behind an endpoint has no layer and no sha256")
        return self


class CheckpointConfig(Spec):
    """What `config.json` holds."""

    format: Literal[1] = 1
    """Version of this layout."""
    kind: Literal["correctness"] = "correctness"
    """Which router it is for."""
    heads: tuple[str, ...] = Field(min_length=2)
    """The models whose answers it was trained on, weakest first: one head each."""
    matched_by: Literal["position", "name"]
    """`name`: a job's models must be among `heads`. `position`: the heads stand for a weak and a strong
    model as such; a job's cheapest model takes the first head, its strongest the last."""
    encoder: EncoderConfig
    """The encoder."""
    heads_sha256: str
    """Of `heads.safetensors`."""
    training: dict[str, Any] = Field(default={})
    """How it was made and how well it did: for the reader, never used."""


@dataclass(frozen=True)
class Heads:
    """One logistic head per model: `sigmoid(vectors @ weight.T + bias)` is the probability of a good answer."""

    weight: NDArray[np.float32]
    """Shape (heads, dimension)."""
    bias: NDArray[np.float32]
    """Shape (heads,)."""

    def logits(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return log odds of a good answer, shape (len(vectors), heads)."""
        return vectors @ self.weight.T + self.bias


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    config: CheckpointConfig
    heads: Heads


def load_checkpoint(folder: Path = DEFAULT_CHECKPOINT) -> Checkpoint:
    """Read a checkpoint. Raises SpecError where a file is missing, altered or not what it should be."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        config = CheckpointConfig.model_validate_json((folder / CONFIG).read_bytes())
        stored = (folder / HEADS).read_bytes()
    except OSError as error:
        raise SpecError(f"router.checkpoint: cannot read {error.filename}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole file"
        raise SpecError(f"router.checkpoint: {folder / CONFIG}: {where}: {fault['msg']}") from error
    if sha256(stored).hexdigest() != config.heads_sha256:
        raise SpecError(f"router.checkpoint: {folder / HEADS} is not the file that {CONFIG} describes; copy both again")
    try:
        tensors = load(stored)
        heads = Heads(tensors["weight"], tensors["bias"])
    except (SafetensorError, KeyError) as error:
        raise SpecError(f"router.checkpoint: {folder / HEADS} does not hold `weight` and `bias`: {error}") from error
    expected = (len(config.heads), config.encoder.dimension)
    if heads.weight.shape != expected or heads.bias.shape != expected[:1]:
        raise SpecError(f"router.checkpoint: {folder / HEADS} holds weights {heads.weight.shape}, not {expected}")
    if not (np.isfinite(heads.weight).all() and np.isfinite(heads.bias).all()):
        raise SpecError(f"router.checkpoint: {folder / HEADS} holds numbers that are not finite")
    return Checkpoint(config, heads)


def save_checkpoint(
    folder: Path,
    heads: Heads,
    *,
    names: tuple[str, ...],
    matched_by: Literal["position", "name"],
    encoder: EncoderConfig,
    training: Mapping[str, Any],
    card: str,
) -> CheckpointConfig:
    """Write a checkpoint into `folder`, which is made if need be; equal values give equal bytes."""
    from safetensors.numpy import save

    stored = save({"weight": heads.weight, "bias": heads.bias})
    config = CheckpointConfig(
        heads=names,
        matched_by=matched_by,
        encoder=encoder,
        heads_sha256=sha256(stored).hexdigest(),
        training=dict(training),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / HEADS).write_bytes(stored)
    (folder / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")
    (folder / CARD).write_text(card)
    return config


def checkpoint_fingerprint(folder: Path = DEFAULT_CHECKPOINT) -> str:
    """Hash that changes with anything that affects scores: `config.json` names the hashes of all the weights.

    Raises SpecError where it cannot be read.
    """
    try:
        return sha256((folder / CONFIG).read_bytes()).hexdigest()
    except OSError as error:
        raise SpecError(f"router.checkpoint: cannot read {error.filename}: {error.strerror}") from error
