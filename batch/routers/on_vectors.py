"""What routers share that go by a prompt's vector and a checkpoint made by `batchrouter train`."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from batch.routers.base import Embedder, Router
from batch.routers.checkpoints.format import Checkpoint, EncoderConfig, model_mixture
from batch.routers.checkpoints.lookup import VectorRouterSpec, open_checkpoint, own_fingerprint
from batch.routers.embedders.registry import build_embedder
from batch.routers.kind import BuildContext, RouterKind
from schemas.routers import ClusterRouterSpec, CorrectnessRouterSpec, KnnRouterSpec

S = TypeVar("S", CorrectnessRouterSpec, KnnRouterSpec, ClusterRouterSpec)

MakeRouter = Callable[[tuple[str, ...], Checkpoint, Embedder], Router]
"""Makes a router of the job's models, the checkpoint and the embedder."""


def kind_on_vectors(
    spec: type[S], router: MakeRouter, *, int8: bool = False, row_spec: S | None = None
) -> RouterKind[S]:
    """The record of a kind of such routers.

    Args:
        router: the router's class.
        int8: as `build_embedder` takes it.
        row_spec: as `RouterKind` takes it.
    """
    return RouterKind(
        spec=spec,
        build=partial(_build, router, int8),
        loads_model=True,
        fingerprint=own_fingerprint,
        encoder=_checkpoint_encoder,
        row_spec=row_spec,
    )


def _build(router: MakeRouter, int8: bool, spec: VectorRouterSpec, context: BuildContext) -> Router:
    """Open the checkpoint, build its embedder, and make the router of both.

    Raises:
        SpecError: as `open_checkpoint`, `model_mixture` and `build_embedder`.
    """
    checkpoint = open_checkpoint(spec)
    # A model that the checkpoint does not know is refused before the slow part, which is loading the embedder.
    model_mixture(context.models, checkpoint.config)
    embedder = build_embedder(
        spec.embedder,
        checkpoint.config.encoder,
        batch_tokens=spec.batch_tokens,
        threads=context.threads,
        environment=context.environment,
        int8=int8,
    )
    return router(context.models, checkpoint, embedder)


def _checkpoint_encoder(spec: VectorRouterSpec) -> EncoderConfig:
    """The encoder that the router's checkpoint was trained on. Raises SpecError where it cannot be opened."""
    return open_checkpoint(spec).config.encoder
