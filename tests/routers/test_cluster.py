"""The cluster router, whose neighbours are clusters of prompts."""

from pathlib import Path

import numpy as np

from batch.routers.cluster import ClusterRouter
from batch.routers.registry import build_router, router_fingerprint, trained_encoder
from batch.training.cluster import neighbours_of_clusters
from schemas.routers import ClusterRouterSpec
from tests.routers.conftest import PAIR
from tests.routers.vectors import NumbersInText, checkpoint, hills, write_neighbours


def test_clusters_tell_which_prompts_need_the_strong_model() -> None:
    """Four groups become four clusters, and a prompt's scores are its group's shares of good answers."""
    judged = hills(400, seed=1)
    stored = neighbours_of_clusters(NumbersInText().embed(judged.prompts), judged.quality, 4, seed=0)
    assert stored.judged.sum(axis=0).tolist() == [400, 400]
    options = {"neighbours": 1, "temperature": 0.05, "shrinkage": 0.1}
    router = ClusterRouter(PAIR, checkpoint("cluster", stored.tensors(), options), NumbersInText())
    asked = ["3 0 0 0 0 0", "0 3 0 0 0 0", "0 0 3 0 0 0", "0 0 0 3 0 0"]
    group = NumbersInText().embed(judged.prompts)[:, :4].argmax(axis=1)
    shares = np.stack([judged.quality[group == g].mean(axis=0) for g in range(4)])
    np.testing.assert_allclose(router.score(asked), shares, atol=0.01)


def test_it_is_built_from_a_folder(tmp_path: Path) -> None:
    """A job's `kind: cluster` loads its checkpoint; encoder and fingerprint are known before it is built."""
    spec = ClusterRouterSpec(kind="cluster", checkpoint=write_neighbours(tmp_path, "cluster", places=20))
    assert build_router(spec, PAIR, seed=0).score(["Why?"]).shape == (1, 2)
    assert trained_encoder(spec).layer == 2
    assert router_fingerprint(spec) is not None
