"""From an embedder's spec, and the encoder that a checkpoint was trained on, to the embedder."""

from typing import assert_never

from batch.environment import NO_ENVIRONMENT, Environment
from batch.errors import SpecError
from batch.routers.base import Embedder
from batch.routers.checkpoints.format import EncoderConfig
from schemas.embedders import EmbedderSpec, EndpointEmbedderSpec, ImportEmbedderSpec, LocalEmbedderSpec


def build_embedder(
    spec: EmbedderSpec,
    trained_on: EncoderConfig,
    *,
    batch_tokens: int,
    threads: int | None = None,
    environment: Environment = NO_ENVIRONMENT,
    int8: bool = False,
) -> Embedder:
    """Build the embedder; nothing is sent yet.

    Args:
        trained_on: what the vectors must come from.
        batch_tokens: most tokens in one batch, padding included.
        threads: torch's, for a local one.
        environment: for one behind endpoints.
        int8: compute in int8 where that is fastest and the encoder's ranges are known; for routers whose scores
            stand it.

    Raises:
        SpecError: `spec` is another encoder than the checkpoint was trained on, or cannot be loaded.
    """
    if spec.kind != trained_on.kind:
        raise SpecError(
            f"router.embedder.kind: the checkpoint was trained on {trained_on.name}, "
            f"which is of kind {trained_on.kind!r}, not {spec.kind!r}"
        )
    match spec:
        case LocalEmbedderSpec():
            return _local(spec, trained_on, batch_tokens, threads, int8)
        case EndpointEmbedderSpec():
            return _endpoint(spec, trained_on, environment)
        case ImportEmbedderSpec():
            return _imported(spec, trained_on)
        case _:
            assert_never(spec)


def _local(
    spec: LocalEmbedderSpec, trained_on: EncoderConfig, batch_tokens: int, threads: int | None, int8: bool
) -> Embedder:
    from batch.routers.checkpoints.encoder_files import encoder_folder, encoder_sha256
    from batch.routers.embedders.int8_graph import ranges_of, suits_this_machine
    from batch.routers.embedders.local import LocalEmbedder

    folder = encoder_folder(spec.model)
    if encoder_sha256(folder) != trained_on.sha256:
        raise SpecError(
            f"router.embedder.model: {folder} is not the encoder that the checkpoint was trained on, {trained_on.name}"
        )
    assert trained_on.layer is not None, "a local encoder has a layer"
    assert trained_on.max_tokens is not None, "a local encoder has a limit of tokens"
    ranges = ranges_of(trained_on.sha256, trained_on.layer) if int8 else None
    if ranges and suits_this_machine():
        from batch.routers.embedders.int8 import Int8Embedder

        return Int8Embedder(
            folder,
            ranges,
            layer=trained_on.layer,
            max_tokens=trained_on.max_tokens,
            batch_tokens=batch_tokens,
            threads=threads,
        )
    return LocalEmbedder(
        folder,
        layer=trained_on.layer,
        max_tokens=trained_on.max_tokens,
        batch_tokens=batch_tokens,
        threads=threads,
    )


def _endpoint(spec: EndpointEmbedderSpec, trained_on: EncoderConfig, environment: Environment) -> Embedder:
    from batch.routers.embedders.endpoint import EndpointEmbedder

    if spec.model != trained_on.name:
        raise SpecError(f"router.embedder.model: the checkpoint was trained on {trained_on.name}, not {spec.model}")
    assert trained_on.max_tokens is not None, "an endpoint's encoder has a limit of tokens"
    return EndpointEmbedder(
        spec, dimension=trained_on.dimension, max_tokens=trained_on.max_tokens, environment=environment
    )


def _imported(spec: ImportEmbedderSpec, trained_on: EncoderConfig) -> Embedder:
    from batch.routers.embedders.imported import ImportedEmbedder

    if spec.path != trained_on.name:
        raise SpecError(f"router.embedder.path: the checkpoint was trained on {trained_on.name}, not {spec.path}")
    return ImportedEmbedder(spec, dimension=trained_on.dimension)
