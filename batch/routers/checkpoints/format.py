"""Trained routers on disk: `config.json`, `weights.safetensors` and a model card, in one folder.

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

from batch.arrays import Float32s
from batch.errors import SpecError
from schemas.base import Spec

CONFIG, WEIGHTS, CARD = "config.json", "weights.safetensors", "README.md"
# File with the facts of the training, in layouts whose `config.json` belongs to the network itself.
TRAINING = "training.json"
CHECKPOINTS = Path(__file__).parent
DEFAULT_CHECKPOINT = CHECKPOINTS / "correctness"

Tensors = Mapping[str, NDArray[Any]]


class EncoderConfig(Spec):
    """The encoder the checkpoint was trained on, and how it is used."""

    kind: Literal["local", "endpoint", "import"] = "local"
    """`local`: it runs in the scoring process; `endpoint`: behind `/v1/embeddings`; `import`: the user's own class."""
    name: str
    """Its usual name; for `endpoint`, the model that requests name; for `import`, the class's import path."""
    sha256: str = ""
    """Hash of its weights: vectors of other weights would look right and be wrong. Empty for an endpoint, whose weights
    are unknown."""
    layer: int | None = Field(default=None, ge=0)
    """Hidden states after this layer are averaged over the tokens, 0 for the embeddings of the tokens themselves; an
    endpoint's encoder has only its own end."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Most tokens of a prompt that it reads, from the beginning; `None`: the user's own class decides."""
    dimension: int = Field(gt=0)
    """Length of its vectors."""

    @model_validator(mode="after")
    def _known_as_its_kind_is(self) -> "EncoderConfig":
        if self.kind == "local" and self.layer is None:
            raise ValueError("a local encoder needs a layer")
        if self.kind != "import" and self.max_tokens is None:
            raise ValueError(f"an encoder of kind {self.kind!r} needs max_tokens")
        if self.kind == "endpoint" and (self.layer is not None or self.sha256):
            raise ValueError("an encoder behind an endpoint has no layer and no sha256")
        if self.kind == "import" and (self.layer, self.max_tokens, self.sha256) != (None, None, ""):
            raise ValueError("an encoder of the user's own has no layer, max_tokens and sha256")
        return self


class CheckpointConfig(Spec):
    """What `config.json` holds."""

    format: Literal[1] = 1
    """Version of this layout."""
    kind: str = "correctness"
    """The kind of router that it is for."""
    models: tuple[str, ...] = Field(min_length=2)
    """The models whose answers it was trained on, weakest first."""
    matched_by: Literal["position", "name"]
    """`name`: a job's models must be among `models`. `position`: the first and the last stand for a weak and a
    strong model as such; a job's cheapest model takes the first's place, its strongest the last's."""
    encoder: EncoderConfig
    """The encoder."""
    options: dict[str, Any] = Field(default={})
    """Settings of the router besides its weights; which ones depends on its kind."""
    weights_sha256: str
    """Hash of `weights.safetensors`."""
    training: dict[str, Any] = Field(default={})
    """How it was trained and how well it did: for the reader; the program never uses it."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory."""

    config: CheckpointConfig
    tensors: Tensors

    def tensor(self, name: str, *shape: int | None) -> Float32s:
        """As `stored`, converted to float32. Raises SpecError also if a number is beyond its range."""
        found = in_float32(self.stored(name, *shape))
        self._refuse_infinite(name, found)
        return found

    def stored(self, name: str, *shape: int | None) -> NDArray[Any]:
        """The tensor of this name and shape, in the precision in which it is stored; `None` stands for any length.

        Raises SpecError if there is no such tensor, its shape differs, or a number in it is not finite.
        """
        found = self.tensors.get(name)
        if found is None:
            raise SpecError(
                f"router.checkpoint: {WEIGHTS} does not hold `{name}`, as a {self.config.kind} router needs"
            )
        fits = len(shape) == found.ndim and all(
            want in (None, has) for want, has in zip(shape, found.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if length is None else str(length) for length in shape)
            raise SpecError(f"router.checkpoint: {WEIGHTS} holds `{name}` of shape {found.shape}, not ({wanted})")
        self._refuse_infinite(name, found)
        return found

    def _refuse_infinite(self, name: str, found: NDArray[Any]) -> None:
        if not np.isfinite(found).all():
            raise SpecError(f"router.checkpoint: {WEIGHTS} holds numbers in `{name}` that are not finite")


def in_float32(tensor: NDArray[Any]) -> Float32s:
    """Convert to float32; numbers beyond its range become infinite, without a warning."""
    with np.errstate(over="ignore"):
        return tensor.astype(np.float32, copy=False)


def refuse_trained(folder: Path, kind: str) -> None:
    """Raise SpecError if `folder` has our own layout, where a router of `kind` needs RouteLLM's."""
    if (folder / WEIGHTS).is_file():
        raise SpecError(f"router.checkpoint: {folder} is not for a router of kind {kind!r}: it holds {WEIGHTS}")


def load_checkpoint(folder: Path = DEFAULT_CHECKPOINT, kind: str = "correctness") -> Checkpoint:
    """Read a checkpoint of this kind. Raises SpecError if a file is missing, altered or of another kind."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        config = CheckpointConfig.model_validate_json((folder / CONFIG).read_bytes())
        stored = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise SpecError(f"router.checkpoint: cannot read {error.filename}: {error.strerror}") from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "the whole file"
        raise SpecError(
            f"router.checkpoint: {folder / CONFIG} was not made by `batchrouter train`: {where}: {fault['msg']}"
        ) from error
    if config.kind != kind:
        raise SpecError(f"router.checkpoint: {folder} is for a router of kind {config.kind!r}, not {kind!r}")
    if sha256(stored).hexdigest() != config.weights_sha256:
        raise SpecError(
            f"router.checkpoint: {folder / WEIGHTS} is not the file that {CONFIG} describes; copy both again"
        )
    try:
        return Checkpoint(config, load(stored))
    except SafetensorError as error:
        raise SpecError(f"router.checkpoint: {folder / WEIGHTS} is no safetensors file: {error}") from error
    except KeyError as error:  # how safetensors says that numpy has no such type
        raise SpecError(f"router.checkpoint: {folder / WEIGHTS} holds numbers of type {error}; save float32") from error


def save_checkpoint(
    folder: Path,
    tensors: Tensors,
    *,
    kind: str = "correctness",
    models: tuple[str, ...],
    matched_by: Literal["position", "name"],
    encoder: EncoderConfig,
    options: Mapping[str, Any] | None = None,
    training: Mapping[str, Any],
    card: str,
) -> CheckpointConfig:
    """Write a checkpoint into `folder`, which is created if needed; equal values give equal bytes."""
    from safetensors.numpy import save

    stored = save({name: np.ascontiguousarray(tensor) for name, tensor in sorted(tensors.items())})
    config = CheckpointConfig(
        kind=kind,
        models=models,
        matched_by=matched_by,
        encoder=encoder,
        options=dict(options or {}),
        weights_sha256=sha256(stored).hexdigest(),
        training=dict(training),
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(stored)
    (folder / CONFIG).write_text(config.model_dump_json(indent=2) + "\n")
    (folder / CARD).write_text(card)
    return config


def checkpoint_fingerprint(folder: Path = DEFAULT_CHECKPOINT) -> str:
    """Hash that changes with anything that affects scores: `config.json` names the hashes of all the weights.

    Raises SpecError if it cannot be read.
    """
    try:
        return sha256((folder / CONFIG).read_bytes()).hexdigest()
    except OSError as error:
        raise SpecError(f"router.checkpoint: cannot read {error.filename}: {error.strerror}") from error


def model_mixture(models: tuple[str, ...], config: CheckpointConfig) -> Float32s:
    """Return how the predictions for a job's models mix those for the checkpoint's, shape (checkpoint's, job's models).

    In a checkpoint matched by name, each of the job's models has its own prediction. In one matched by position, the
    job's cheapest model takes the prediction of the checkpoint's first model, and the strongest that of the last.
    Models in between take a mixture of these two, by position: a stopgap that keeps their order until a checkpoint is
    trained on them.
    Raises SpecError for a model that a checkpoint matched by name was not trained on.
    """
    mixture = np.zeros((len(config.models), len(models)), dtype=np.float32)
    if config.matched_by == "name":
        for column, model in enumerate(models):
            if model not in config.models:
                known = ", ".join(config.models)
                raise SpecError(f"router.checkpoint: it was trained on {known}; {model!r} is not among them")
            mixture[config.models.index(model), column] = 1.0
        return mixture
    towards_strong = np.linspace(0.0, 1.0, len(models)) if len(models) > 1 else np.ones(1)
    mixture[-1] = towards_strong
    mixture[0] = 1.0 - towards_strong
    return mixture
