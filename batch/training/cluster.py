"""Trains clusters: k-means over the prompts' directions, and the judged answers in each; options as for `knn`."""

from collections.abc import Sequence

import numpy as np

from batch.arrays import Float32s, Floats
from batch.routers.base import Embedder
from batch.routers.estimators.cosine_search import directions, nearest
from batch.routers.estimators.neighbours import NeighbourOptions, Neighbours
from batch.training.data import Judged, Trained
from batch.training.kind import FitRequest, VectorTrainer
from batch.training.knn import choose_options, kept_and_held, pool_by_place, prompts_and_quality

CLUSTERS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
NEAREST = (1, 2, 4, 8, 16, 32)

# Cluster counts are tried that leave at least so many prompts for each cluster on average.
_LEAST_PROMPTS = 4
# k-means runs on so many prompts at most; then all prompts are assigned to the centres.
_MOST_TO_FIND = 20_000
_STEPS = 50


def fit_cluster(data: Sequence[Judged], embedder: Embedder, seed: int, validation: float) -> Trained:
    """Cluster the prompts and count the judged answers in each; choose how many by log loss on prompts held out.

    Arguments, promises and errors are those of `fit_knn`. The seed is also that of k-means.
    """
    prompts, quality = prompts_and_quality(data)
    vectors = embedder.embed(prompts)
    kept, held = kept_and_held(prompts, quality, seed, validation)
    counts = [count for count in CLUSTERS if count * _LEAST_PROMPTS <= len(kept)] or [1]
    best: tuple[float, int, NeighbourOptions] | None = None
    for count in counts:
        trial = neighbours_of_clusters(vectors[kept], quality[kept], count, seed)
        options, loss = choose_options(trial, NEAREST, vectors[held], quality[held])
        if best is None or loss < best[0]:
            best = loss, count, options
    assert best is not None, "there is always one count to try"
    loss, count, options = best
    stored = neighbours_of_clusters(vectors, quality, count, seed)
    chosen = {"clusters": count, **options.model_dump(), "validation_log_loss": round(loss, 4)}
    return Trained(stored.tensors(), options.model_dump(), chosen)


def neighbours_of_clusters(vectors: Float32s, quality: Floats, count: int, seed: int) -> Neighbours:
    """Clusters, at most `count` of them: none is empty."""
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    placed = directions(vectors, mean)
    centres = directions(_centres(placed, count, seed), np.zeros_like(mean)).astype(np.float16)
    place = np.concatenate([places[:, 0] for _, _, places in nearest(placed, centres, 1)])
    used, place = np.unique(place, return_inverse=True)
    return pool_by_place(mean, centres[used], place, quality)


def _centres(placed: Float32s, count: int, seed: int) -> Float32s:
    """The centres that k-means finds, shape (clusters, dimension)."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    some = placed[:: -(-len(placed) // _MOST_TO_FIND)]
    distinct = len(np.unique(some, axis=0))
    # The number of threads changes how sums are rounded, and so where centres end: one thread is deterministic.
    with threadpool_limits(1):
        found = KMeans(min(count, distinct), n_init=1, max_iter=_STEPS, random_state=seed).fit(some)
    centres: Float32s = found.cluster_centers_.astype(np.float32)
    return centres


def _fit(asked: FitRequest) -> Trained:
    return fit_cluster(asked.judged(), asked.embedder, asked.seed, asked.validation)


TRAINER = VectorTrainer(
    kind="cluster",
    card="For each model, how well it answers prompts of the same cluster.",
    fit=_fit,
)
