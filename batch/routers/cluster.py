"""Clusters: how well each model answered the judged prompts of the clusters that are nearest.

As Avengers-Pro has it (arXiv 2508.12631): k-means, the few nearest clusters, weighed by how near they are. A cluster
counts with the answers judged in it, so that one with few of them says less; log loss on prompts held out is .490
with that and .496 without (MMLU, layer 2). A checkpoint is small, and time does not grow with the judged prompts.
"""

from batch.routers.base import Router
from batch.routers.checkpoints.lookup import own_fingerprint
from batch.routers.kind import BuildContext, RouterKind
from batch.routers.knn import KnnRouter
from batch.routers.on_vectors import build_on_vectors, checkpoint_encoder
from schemas.routers import ClusterRouterSpec


class ClusterRouter(KnnRouter):
    """Scores of shape (prompts, models). As nearest neighbours, which here are clusters with many judged answers."""


def _build(spec: ClusterRouterSpec, context: BuildContext) -> Router:
    return build_on_vectors(ClusterRouter, spec, context)


KIND = RouterKind(
    spec=ClusterRouterSpec,
    build=_build,
    loads_model=True,
    fingerprint=own_fingerprint,
    encoder=checkpoint_encoder,
)
