"""What is known of a router before it is built: its checkpoint, the encoder it needs, the hash of its weights."""

from pathlib import Path

from batch.errors import SpecError
from batch.routers.checkpoints.format import (
    CHECKPOINTS,
    Checkpoint,
    EncoderConfig,
    checkpoint_fingerprint,
    load_checkpoint,
)
from batch.routers.checkpoints.hub import find_folder
from batch.routers.network.pretrained import folder_fingerprint
from schemas.routers import (
    BertRouterSpec,
    CausalLlmRouterSpec,
    ClusterRouterSpec,
    CorrectnessRouterSpec,
    EmbeddingRouterSpec,
    KnnRouterSpec,
    MfRouterSpec,
    RouterSpec,
    StaticRouterSpec,
    SwRankingRouterSpec,
)

_CHECKPOINT = "router.checkpoint"

_OursSpec = CorrectnessRouterSpec | StaticRouterSpec | KnnRouterSpec | ClusterRouterSpec


def open_checkpoint(spec: _OursSpec) -> Checkpoint:
    """Read the checkpoint that a router of our own layout names, or the one that ships. Raises SpecError."""
    return load_checkpoint(_folder(spec), spec.kind)


def checkpoint_folder(spec: BertRouterSpec | CausalLlmRouterSpec) -> Path:
    """The folder of a network that the router runs whole. Raises SpecError where it is not on this machine."""
    return find_folder(spec.checkpoint, _CHECKPOINT)


def trained_encoder(spec: EmbeddingRouterSpec) -> EncoderConfig:
    """The encoder that the router's vectors must come from. Raises SpecError."""
    match spec:
        case CorrectnessRouterSpec() | KnnRouterSpec() | ClusterRouterSpec():
            return open_checkpoint(spec).config.encoder
        case MfRouterSpec():
            from batch.routers.mf import open_factors

            return open_factors(spec).encoder
        case SwRankingRouterSpec():
            from batch.routers.sw_ranking import arena_encoder

            return arena_encoder(spec)
        case _:
            raise SpecError(f"router.kind: {type(spec).__name__} has no encoder")


def router_fingerprint(spec: RouterSpec) -> str | None:
    """Hash that changes with anything on disk that affects the router's scores; `None` where it reads nothing.

    Raises:
        SpecError: it cannot be read.
    """
    match spec:
        case CorrectnessRouterSpec() | StaticRouterSpec() | KnnRouterSpec() | ClusterRouterSpec():
            return checkpoint_fingerprint(_folder(spec))
        case MfRouterSpec():
            from batch.routers.mf import factors_fingerprint

            return factors_fingerprint(spec)
        case SwRankingRouterSpec():
            from batch.routers.sw_ranking import arena_fingerprint

            return arena_fingerprint(spec)
        case BertRouterSpec() | CausalLlmRouterSpec():
            return folder_fingerprint(checkpoint_folder(spec), _CHECKPOINT)
        case _:
            return None


def _folder(spec: _OursSpec) -> Path:
    return find_folder(spec.checkpoint, _CHECKPOINT) if spec.checkpoint else CHECKPOINTS / spec.kind
