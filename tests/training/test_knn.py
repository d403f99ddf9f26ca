"""Training of nearest neighbours and of clusters."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from batch.errors import InputError
from batch.measures.pair import apgr
from batch.routers.base import Embedder
from batch.routers.cluster import ClusterRouter
from batch.routers.knn import KnnRouter
from batch.training.cluster import fit_cluster, neighbours_of_clusters
from batch.training.data import Judged, Trained
from batch.training.knn import fit_knn, neighbours_of_prompts
from tests.routers.conftest import PAIR
from tests.routers.vectors import NeighbourKind, NumbersInText, checkpoint, hills, texts

THREE = ("small", "middle", "large")
Fit = Callable[[Sequence[Judged], Embedder, int, float], Trained]
KINDS: dict[NeighbourKind, tuple[Fit, type[KnnRouter]]] = {
    "knn": (fit_knn, KnnRouter),
    "cluster": (fit_cluster, ClusterRouter),
}
both = pytest.mark.parametrize("kind", ["knn", "cluster"])


@both
def test_what_was_judged_tells_models_apart(kind: NeighbourKind) -> None:
    """Trained on two sets with answers left out, three models' scores rank fresh prompts far better than chance."""
    fit, router = KINDS[kind]
    sets = [hills(400, seed, models=THREE) for seed in (1, 2)]
    for judged in sets:
        judged.quality[np.random.default_rng(5).random(judged.quality.shape) < 0.3] = np.nan
    trained = fit(sets, NumbersInText(), 0, 0.2)
    fresh = hills(400, seed=9, models=THREE)
    stored = checkpoint(kind, trained.tensors, trained.options, THREE)
    scores = router(THREE, stored, NumbersInText()).score(fresh.prompts)
    assert ((scores > 0) & (scores < 1)).all()
    for weak, strong in ((0, 2), (0, 1), (1, 2)):
        gain = scores[:, strong] - scores[:, weak]
        assert apgr(gain, fresh.quality[:, weak], fresh.quality[:, strong]) > 0.7


@both
def test_training_again_gives_the_same(kind: NeighbourKind) -> None:
    """The same data and seed give the same tensors and options, and `chosen` lists these options and more."""
    fit, _ = KINDS[kind]
    one, two = (fit([hills(300, seed=1)], NumbersInText(), 3, 0.2) for _ in range(2))
    assert one.options == two.options
    assert one.chosen == two.chosen
    assert one.chosen.keys() > one.options.keys()
    for name, tensor in one.tensors.items():
        np.testing.assert_array_equal(tensor, two.tensors[name])


@both
def test_prompts_held_out_are_used_in_the_end(kind: NeighbourKind) -> None:
    """Options are chosen on held-out prompts, but the router stores every judged answer."""
    fit, _ = KINDS[kind]
    trained = fit([hills(300, seed=1)], NumbersInText(), 0, 0.5)
    assert trained.tensors["judged"].sum(axis=0).tolist() == [300, 300]


@both
@pytest.mark.parametrize("seed", range(8))
def test_twenty_prompts_suffice(kind: NeighbourKind, seed: int) -> None:
    """18 prompts are enough for any seed: if the tenth to hold out is empty, one is held out all the same."""
    fit, _ = KINDS[kind]
    assert np.isfinite(fit([hills(18, seed)], NumbersInText(), seed, 0.1).chosen["validation_log_loss"])


def test_few_prompts_make_few_clusters_and_not_one() -> None:
    """Sixty prompts make more than one cluster; with a single cluster all scores would be equal."""
    trained = fit_cluster([hills(60, seed=1)], NumbersInText(), 0, 0.1)
    scores = ClusterRouter(PAIR, checkpoint("cluster", trained.tensors, trained.options, PAIR), NumbersInText())
    assert len(np.unique(scores.score(hills(60, seed=2).prompts)[:, 0])) > 1


def test_equal_vectors_share_a_place() -> None:
    """A prompt that came five times is one neighbour with five judged answers, so it does not crowd out others."""
    vectors = np.array([[1, 0]] * 5 + [[0, 1], [0, -1]], np.float32)
    quality = np.array([[1, 0], [0, 0], [np.nan, 0], [1, 1], [1, 0], [0.5, 1], [np.nan, 1]])
    places = neighbours_of_prompts(vectors, quality)
    assert sorted(places.judged[:, 0].tolist()) == [0, 1, 4]
    crowded = int(places.judged[:, 0].argmax())
    assert places.quality[crowded].tolist() == [0.75, pytest.approx(0.2)]
    assert places.judged[crowded].tolist() == [4, 5]
    np.testing.assert_allclose(places.usual, [3.5 / 5, 3 / 7])


def test_no_cluster_is_empty() -> None:
    """If distinct prompts are fewer than the clusters asked for, each becomes one cluster, without a warning."""
    vectors = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    stored = neighbours_of_clusters(vectors, np.ones((15, 2)), 16, seed=0)
    assert stored.judged.tolist() == [[5, 5]] * 3


@both
@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("other models", "need sets that judge the same models"),
        ("never judged", "no answer of large was judged"),
        ("too few", "2 judged prompts are too few"),
        ("nothing judged", "no answer of small was judged"),
    ],
)
def test_data_that_does_not_suffice_is_refused(kind: NeighbourKind, trouble: str, says: str) -> None:
    """The message is one line that begins with `data`."""
    fit, _ = KINDS[kind]
    data = [hills(50, seed=1)]
    if trouble == "other models":
        data.append(replace(data[0], models=PAIR[::-1]))
    elif trouble == "too few":
        data = [Judged("few", texts(np.ones((2, 2))), PAIR, np.ones((2, 2)))]
    else:
        data[0].quality[:, 1 if trouble == "never judged" else slice(None)] = np.nan
    with pytest.raises(InputError, match=f"^data: .*{says}") as refused:
        fit(data, NumbersInText(), 0, 0.001)
    assert "\n" not in str(refused.value)
