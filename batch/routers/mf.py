"""RouteLLM's matrix factorisation: models and prompts as vectors, and how likely the strong model wins.

It scores with RouteLLM's own weights, and with those that `batch.training.mf` makes. A model's logit is
`classifier . (model / |model| * (projection @ prompt))`, and the strong model's win rate is the sigmoid of the
difference of the two models' logits (Ong et al. 2024, arXiv 2406.18665, section 4.2, as their code computes it). For a
fixed pair of models the difference is linear in the prompt's vector. So the router folds all factors into one vector
when it is built, and a batch of prompts is scored by a single product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import numpy as np

from batch.arrays import Float32s, Floats
from batch.errors import SpecError
from batch.routers.base import Embedder, Router
from batch.routers.checkpoints.format import (
    CONFIG,
    WEIGHTS,
    Checkpoint,
    CheckpointConfig,
    EncoderConfig,
    Tensors,
    checkpoint_fingerprint,
    in_float32,
    load_checkpoint,
)
from batch.routers.checkpoints.hub import find_folder
from batch.routers.checkpoints.mf_models import MODELS
from batch.routers.embedders.registry import build_embedder
from batch.routers.embedders.undeclared import assumed_encoder, assumed_fingerprint, normalizes_vectors
from batch.routers.estimators.logistic_heads import probabilities
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import MfRouterSpec

_KEY = "router.checkpoint"
_PUBLISHED_WEIGHTS = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")

# Vectors are divided by at least this length, as torch does, so that a vector of zeros stays one.
UNIT_FLOOR = 1e-12


@dataclass(frozen=True)
class Factors:
    """The trained factors, read from either layout."""

    models: tuple[str, ...]
    """The models that have a vector, in the order of `vectors`."""
    vectors: Float32s
    """One for each model, shape (models, rank)."""
    projection: Float32s
    """Shape (rank, dimension): multiplied by a prompt's vector, it gives one as long as a model's."""
    bias: Float32s
    """Shape (rank,): added to the projected vector; zero in RouteLLM's weights."""
    classifier: Float32s
    """Weights of the product of a model's and a prompt's vector, shape (rank,)."""
    encoder: EncoderConfig
    """The encoder that prompts' vectors must come from."""
    unit: bool
    """Must prompts' vectors be scaled to length 1 first?"""
    by_position: bool
    """Do the first and the last of `models` stand for any weak and any strong model?"""

    def tensors(self) -> Tensors:
        """The tensors of a checkpoint in our own layout."""
        return {
            "models": self.vectors,
            "projection": self.projection,
            "bias": self.bias,
            "classifier": self.classifier,
        }

    def pair(self, strong: str, weak: str) -> tuple[Floats, float]:
        """Return `direction`, shape (dimension,), and `offset`: `prompt @ direction + offset` is the log odds.

        Raises SpecError for a model that has no vector, and if both names are the same.
        """
        if strong == weak:
            raise SpecError(f"router.strong: {strong} is router.weak too; name two models")
        difference = self._unit(strong, "router.strong") - self._unit(weak, "router.weak")
        weighed = difference * self.classifier
        return weighed @ self.projection.astype(np.float64), float(weighed @ self.bias)

    def _unit(self, model: str, key: str) -> Floats:
        if model not in self.models:
            raise SpecError(f"{key}: the checkpoint knows {', '.join(self.models)}; {model!r} is not among them")
        vector = self.vectors[self.models.index(model)].astype(np.float64)
        unit: Floats = vector / max(float(np.linalg.norm(vector)), UNIT_FLOOR)
        return unit


class MfRouter:
    """Scores of shape (prompts, 1): how likely the strong model's answer wins."""

    def __init__(self, strongest: str, factors: Factors, strong: str, weak: str, embedder: Embedder) -> None:
        """Fold the factors of the pair into one vector.

        Args:
            strongest: the job's strongest model.
            strong: name, in the checkpoint, of the model that stands for it.
            weak: name, in the checkpoint, of the model that stands for the job's cheapest.

        Raises:
            SpecError: as `Factors.pair`.
        """
        self.models: tuple[str, ...] = (strongest,)
        direction, self._offset = factors.pair(strong, weak)
        self._direction = direction.astype(np.float32)
        self._unit = factors.unit
        self._embedder = embedder

    def score(self, prompts: Sequence[str]) -> Float32s:
        vectors = self._embedder.embed(prompts)
        logits = vectors @ self._direction
        if self._unit:
            logits /= np.maximum(np.linalg.norm(vectors, axis=1), UNIT_FLOOR)
        return probabilities(logits + np.float32(self._offset)).reshape(-1, 1)


def open_factors(spec: MfRouterSpec) -> Factors:
    """Read the factors that the spec names, in our own layout or RouteLLM's. Raises SpecError for any other folder."""
    folder = find_folder(spec.checkpoint, _KEY)
    if (folder / WEIGHTS).exists():
        return _own(load_checkpoint(folder, "mf"))
    return _published(folder, spec)


def factors_fingerprint(spec: MfRouterSpec) -> str:
    """Hash that changes with anything on disk that affects scores. Raises SpecError where it cannot be read."""
    folder = find_folder(spec.checkpoint, _KEY)
    if (folder / WEIGHTS).exists():
        return checkpoint_fingerprint(folder)
    with _published_weights(folder).open("rb") as file:
        return file_digest(file, "sha256").hexdigest() + assumed_fingerprint(spec.embedder)


def pair_of(spec: MfRouterSpec, factors: Factors, models: tuple[str, ...]) -> tuple[str, str]:
    """Return the names of the strong and the weak model in the checkpoint; `models` are the job's, cheapest first.

    The spec's defaults name two models of RouteLLM's checkpoints. If the job keeps these defaults and the checkpoint
    does not know both, the names are the job's strongest and cheapest model, if the checkpoint knows these, else the
    checkpoint's own last and first, if it is matched by position.
    """
    asked = (spec.strong, spec.weak)
    defaults = tuple(MfRouterSpec.model_fields[key].default for key in ("strong", "weak"))
    if asked != defaults or set(asked) <= set(factors.models):
        return asked
    if {models[-1], models[0]} <= set(factors.models):
        return models[-1], models[0]
    return (factors.models[-1], factors.models[0]) if factors.by_position else asked


def _own(checkpoint: Checkpoint) -> Factors:
    config = checkpoint.config
    models = _models(config)
    rank = checkpoint.tensor("models", len(models), None).shape[1]
    return Factors(
        models=models,
        vectors=checkpoint.tensor("models", len(models), rank),
        projection=checkpoint.tensor("projection", rank, config.encoder.dimension),
        bias=checkpoint.tensor("bias", rank),
        classifier=checkpoint.tensor("classifier", rank),
        encoder=config.encoder,
        unit=True,
        by_position=config.matched_by == "position",
    )


def _models(config: CheckpointConfig) -> tuple[str, ...]:
    models = config.options.get("models", config.models)
    if not isinstance(models, list | tuple) or not all(isinstance(name, str) for name in models):
        raise SpecError(f"{_KEY}: {CONFIG}: options.models must be a list of names")
    return tuple(models)


def _published_weights(folder: Path) -> Path:
    weights = folder / _PUBLISHED_WEIGHTS
    if weights.exists():
        return weights
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise SpecError(
            f"{_KEY}: {folder} holds {pickles[0]}, which could run code when loaded; save it as {_PUBLISHED_WEIGHTS}"
        )
    raise SpecError(f"{_KEY}: {folder} holds neither {_PUBLISHED_WEIGHTS} nor {WEIGHTS}")


def _published(folder: Path, spec: MfRouterSpec) -> Factors:
    """Read RouteLLM's layout: the tensors `P`, `text_proj` and `classifier`.

    The last two may be called as the first module of a sequence (`classifier.0.weight`). Tensors that only training
    used, such as the training prompts' vectors `Q`, are ignored.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = _published_weights(folder)
    try:
        tensors = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise SpecError(f"{_KEY}: {path} is no safetensors file: {error}") from error
    except KeyError as error:  # how safetensors says that numpy has no such type
        raise SpecError(f"{_KEY}: {path} holds numbers of type {error}; save float32") from error
    vectors = _matrix(path, tensors, "P.weight")
    if len(vectors) != len(MODELS):
        raise SpecError(f"{_KEY}: {path} holds {len(vectors)} models; RouteLLM's table names {len(MODELS)}")
    rank = vectors.shape[1]
    projected = any(name.startswith("text_proj.") for name in tensors)
    # Without a projection, prompts' vectors are as long as models'.
    projection = (
        _matrix(path, tensors, "text_proj.0.weight", "text_proj.weight")
        if projected
        else np.eye(rank, dtype=np.float32)
    )
    classifier = _matrix(path, tensors, "classifier.0.weight", "classifier.weight")
    if len(projection) != rank or classifier.shape != (1, rank):
        raise SpecError(
            f"{_KEY}: {path}: P {vectors.shape}, text_proj {projection.shape} and classifier {classifier.shape} "
            "do not fit together"
        )
    return Factors(
        models=MODELS,
        vectors=vectors,
        projection=projection,
        bias=np.zeros(rank, dtype=np.float32),
        classifier=classifier[0],
        encoder=assumed_encoder(spec.embedder, projection.shape[1]),
        unit=normalizes_vectors(spec.embedder),
        by_position=False,
    )


def _matrix(path: Path, tensors: Tensors, *names: str) -> Float32s:
    found = next((tensors[name] for name in names if name in tensors), None)
    if found is None or found.ndim != 2:
        raise SpecError(f"{_KEY}: {path} holds no matrix `{names[0]}`, as RouteLLM's layout has it")
    matrix = in_float32(found)
    if not np.isfinite(matrix).all():
        raise SpecError(f"{_KEY}: {path} holds numbers in `{names[0]}` that are not finite")
    return matrix


def _build(spec: MfRouterSpec, context: BuildContext) -> Router:
    factors = open_factors(spec)
    strong, weak = pair_of(spec, factors, context.models)
    factors.pair(strong, weak)  # a model that has no vector is refused before the slow part
    embedder = build_embedder(
        spec.embedder,
        factors.encoder,
        batch_tokens=spec.batch_tokens,
        threads=context.threads,
        environment=context.environment,
    )
    return MfRouter(context.strongest, factors, strong, weak, embedder)


def _encoder(spec: MfRouterSpec) -> EncoderConfig:
    return open_factors(spec).encoder


KIND = RouterKind(spec=MfRouterSpec, build=_build, loads_model=True, fingerprint=factors_fingerprint, encoder=_encoder)
