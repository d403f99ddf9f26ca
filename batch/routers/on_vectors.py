"""What routers share that go by a prompt's vector and a checkpoint made by `batchrouter train`."""

from collections.abc import Callable

from batch.routers.base import Embedder, Router
from batch.routers.checkpoints.format import Checkpoint, EncoderConfig, model_mixture
from batch.routers.checkpoints.lookup import VectorRouterSpec, open_checkpoint
from batch.routers.embedders.registry import build_embedder
from batch.routers.kind import BuildContext


def build_on_vectors(
    router: Callable[[tuple[str, ...], Checkpoint, Embedder], Router],
    spec: VectorRouterSpec,
    context: BuildContext,
    *,
    int8: bool = False,
) -> Router:
    """Open the checkpoint, build its embedder, and make the router of both.

    Args:
        router: the router's class: it takes the job's models, the checkpoint and the embedder.
        int8: as `build_embedder` takes it.

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


def checkpoint_encoder(spec: VectorRouterSpec) -> EncoderConfig:
    """The encoder that the router's checkpoint was trained on. Raises SpecError where it cannot be opened."""
    return open_checkpoint(spec).config.encoder
