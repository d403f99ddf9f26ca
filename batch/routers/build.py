"""From a router's spec to the router, in one place."""

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from batch.errors import SpecError
from batch.routers.base import NOTHING_OUTSIDE, Embedder, Outside, Router
from schemas.routers import (
    ConstantRouterSpec,
    CorrectnessRouterSpec,
    EndpointEmbedderSpec,
    ImportRouterSpec,
    LengthRouterSpec,
    LocalEmbedderSpec,
    RandomRouterSpec,
    RouterSpec,
    RulesRouterSpec,
)

if TYPE_CHECKING:
    from batch.routers.checkpoint import EncoderConfig

# What `router-<kind>-<cutoff>` in a row may name: these need nothing but their defaults.
_ROW_ROUTERS: dict[str, RouterSpec] = {
    "random": RandomRouterSpec(kind="random"),
    "constant": ConstantRouterSpec(kind="constant"),
    "length": LengthRouterSpec(kind="length"),
    "correctness": CorrectnessRouterSpec(),
}
ROW_KINDS = tuple(_ROW_ROUTERS)


def build_router(
    spec: RouterSpec,
    models: tuple[str, ...],
    seed: int,
    threads: int | None = None,
    outside: Outside = NOTHING_OUTSIDE,
) -> Router:
    """Build the router for a job's `models`, cheapest first; nothing is sent yet.

    Args:
        threads: torch's, for routers that use it.
        outside: for routers that call endpoints.

    Raises:
        SpecError: in one line, for whatever the spec names that is missing or does not fit.
    """
    match spec:
        case RandomRouterSpec():
            from batch.routers.random import RandomRouter

            return RandomRouter(models[-1], seed)
        case ConstantRouterSpec():
            from batch.routers.constant import ConstantRouter

            return ConstantRouter(models[-1], spec.value)
        case LengthRouterSpec():
            from batch.routers.length import LengthRouter

            return LengthRouter(models[-1], spec.midpoint)
        case RulesRouterSpec():
            from batch.routers.rules import RulesRouter

            return RulesRouter(models, spec)
        case CorrectnessRouterSpec():
            return _correctness(spec, models, threads, outside)
        case ImportRouterSpec():
            from batch.routers.imported import import_router

            return import_router(spec.path, spec.options, models)
        case _:
            assert_never(spec)


def for_kind(kind: str) -> RouterSpec | None:
    """Return the spec of a router that a row asks for by kind alone; `None` for one that needs more."""
    return _ROW_ROUTERS.get(kind)


def _correctness(spec: CorrectnessRouterSpec, models: tuple[str, ...], threads: int | None, outside: Outside) -> Router:
    from batch.routers.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
    from batch.routers.correctness import CorrectnessRouter, head_mixture

    checkpoint = load_checkpoint(Path(spec.checkpoint) if spec.checkpoint else DEFAULT_CHECKPOINT)
    head_mixture(models, checkpoint.config)  # a model it does not know is refused before the slow part
    trained_on = checkpoint.config.encoder
    if spec.embedder.kind != trained_on.kind:
        raise SpecError(
            f"router.embedder.kind: the checkpoint was trained on {trained_on.name}, "
            f"which is of kind {trained_on.kind!r}, not {spec.embedder.kind!r}"
        )
    embedder: Embedder
    match spec.embedder:
        case LocalEmbedderSpec():
            embedder = _local(spec.embedder, trained_on, spec.batch_tokens, threads)
        case EndpointEmbedderSpec():
            embedder = _endpoint(spec.embedder, trained_on, outside)
        case _:
            assert_never(spec.embedder)
    return CorrectnessRouter(models, checkpoint, embedder)


def _local(spec: LocalEmbedderSpec, trained_on: "EncoderConfig", batch_tokens: int, threads: int | None) -> Embedder:
    from batch.routers.embedder import LocalEmbedder, encoder_folder, encoder_sha256

    folder = encoder_folder(spec.model)
    if encoder_sha256(folder) != trained_on.sha256:
        raise SpecError(
            f"router.embedder.model: {folder} is not the encoder that the checkpoint was trained on, {trained_on.name}"
        )
    assert trained_on.layer is not None, "a local encoder has a layer"
    return LocalEmbedder(
        folder,
        layer=trained_on.layer,
        max_tokens=trained_on.max_tokens,
        batch_tokens=batch_tokens,
        threads=threads,
    )


def _endpoint(spec: EndpointEmbedderSpec, trained_on: "EncoderConfig", outside: Outside) -> Embedder:
    from batch.routers.endpoint_embedder import EndpointEmbedder

    if spec.model != trained_on.name:
        raise SpecError(f"router.embedder.model: the checkpoint was trained on {trained_on.name}, not {spec.model}")
    return EndpointEmbedder(spec, dimension=trained_on.dimension, max_tokens=trained_on.max_tokens, outside=outside)
