"""Clusters: how well each model answered the judged prompts of the clusters that are nearest.

As in Avengers-Pro (arXiv 2508.12631): k-means, then the few nearest clusters, weighted by how near they are. A cluster
also counts by the number of answers judged in it; log loss on held-out prompts is .490 with that and .496 without
(MMLU, layer 2). A checkpoint is small, and scoring takes the same time for any number of judged prompts.
"""

from batch.routers.knn import KnnRouter
from batch.routers.on_vectors import kind_on_vectors
from schemas.routers import ClusterRouterSpec


class ClusterRouter(KnnRouter):
    """As `KnnRouter`, with clusters as neighbours, each of many judged answers."""


KIND = kind_on_vectors(ClusterRouterSpec, ClusterRouter)
