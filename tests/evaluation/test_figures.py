"""`measure` on made-up benchmarks: the figures of routers and baselines, and the notes beside them."""

from dataclasses import replace

import numpy as np
import pytest

from batch.evaluation.benchmark import Benchmark
from batch.evaluation.figures import measure
from schemas.evaluation_report import BenchmarkFigures, RouterFigures
from tests.measures.reference import apgr, cpt


def benchmark(prompts: int = 300, models: int = 2, *, costs: bool = False, seed: int = 0) -> Benchmark:
    """Longer prompts are harder for every model but the last, and each model is right more often than the previous."""
    chance = np.random.default_rng(seed)
    words = chance.integers(1, 60, prompts)
    ease = np.linspace(0.35, 0.9, models)
    quality = (chance.random((prompts, models)) < ease - np.linspace(0.3, 0.0, models) * (words[:, None] / 60)).astype(
        float
    )
    texts = [f"p{at} " + "word " * int(count) for at, count in enumerate(words)]
    names = ("small", "medium", "large", "huge")[:models]
    cost = np.tile(10.0 ** np.arange(models), (prompts, 1)) if costs else None
    return Benchmark("made up", texts, names, quality, cost)


def figures(found: BenchmarkFigures, name: str) -> RouterFigures:
    return found.routers[name]


def test_a_router_has_its_exact_measures_and_intervals_around_them() -> None:
    """APGR and CPT equal the reference, each interval contains its figure, and all baselines are listed."""
    made = benchmark()
    scores = np.random.default_rng(1).random((300, 1)) + made.quality[:, 1:] - made.quality[:, :1]
    found = measure(made, {"mine": scores}, seed=0, bootstrap=200, plot="x.png")
    mine = figures(found, "mine")
    assert mine.apgr is not None
    assert mine.cpt is not None
    weak, strong = made.quality.T
    assert mine.apgr.value == pytest.approx(apgr(scores[:, 0], weak, strong))
    assert mine.cpt["50"].value == pytest.approx(cpt(scores[:, 0], weak, strong, 0.5))
    for figure in (mine.apgr, mine.auc, *mine.cpt.values()):
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
    assert list(found.routers) == ["mine", "oracle", "length", "random", "best single"]
    assert {name for name, one in found.routers.items() if one.role == "router"} == {"mine"}
    assert mine.aiq is None


def test_models_that_cost_the_same_have_no_aiq() -> None:
    """If all models cost the same, no router or baseline has an AIQ, and a note gives the reason."""
    made = benchmark(models=3)
    alike = replace(made, cost=np.ones_like(made.quality))
    found = measure(alike, {"mine": made.quality}, seed=0, bootstrap=20, plot="x.png")
    assert {name: one.aiq for name, one in found.routers.items()} == dict.fromkeys(found.routers)
    assert "all models cost the same, so there is no AIQ" in found.notes


def test_a_gap_too_small_for_intervals_is_noted() -> None:
    """A note says why APGR lacks an interval, but only if a bootstrap was requested and gave none."""
    said = "the gap is so small that many resamples have none, so APGR and CPT have no intervals"
    wide, narrow = benchmark(), benchmark()
    narrow.quality[:, 1] = narrow.quality[:, 0]
    narrow.quality[np.flatnonzero(narrow.quality[:, 0] == 0)[:1], 1] = 1
    for made, bootstrap, told in ((wide, 50, False), (narrow, 50, True), (narrow, 0, False)):
        found = measure(made, {"mine": made.quality}, seed=0, bootstrap=bootstrap, plot="x.png")
        apgr_of_mine = found.routers["mine"].apgr
        assert apgr_of_mine is not None
        assert (apgr_of_mine.low is None) == (told or not bootstrap)
        assert (said in found.notes) == told


def test_baselines_are_what_they_are_called() -> None:
    """A router of the true quality equals the oracle, random is near one half, best single is the better model."""
    made = benchmark(2000)
    found = measure(made, {"mine": made.quality}, seed=0, bootstrap=0, plot="x.png")
    oracle, mine, lots = (figures(found, name).apgr for name in ("oracle", "mine", "random"))
    assert oracle is not None
    assert lots is not None
    assert oracle == mine
    assert lots.value == pytest.approx(0.5, abs=0.03)
    assert lots.low is None
    assert found.best_single == max(found.models, key=found.models.__getitem__)
    assert figures(found, "best single").auc.value == pytest.approx(max(found.models.values()))
    assert figures(found, "length").apgr is not None


def test_routellms_figures_stand_beside_ours() -> None:
    """RouteLLM's protocol gives random an APGR of 0.50, and has no figures for a router whose scores are too equal."""
    made = benchmark(2000)
    chosen = (made.quality[:, 1:] > made.quality[:, :1]).astype(float)
    found = measure(made, {"coarse": chosen}, seed=0, bootstrap=0, plot="x.png")
    lots = figures(found, "random").routellm
    assert lots is not None
    assert lots.apgr == pytest.approx(0.5, abs=0.03)
    assert figures(found, "coarse").routellm is None


def test_more_than_two_models_with_costs_have_an_aiq() -> None:
    """The oracle has the highest AIQ, and a router that predicts noise does no better than the mix of models."""
    made = benchmark(1500, 3, costs=True)
    noise = np.random.default_rng(2).random((1500, 3))
    found = measure(made, {"noise": noise, "pair": noise[:, :1]}, seed=0, bootstrap=50, plot="x.png")
    values = {name: one.aiq.value for name, one in found.routers.items() if one.aiq is not None}
    assert set(values) == {"noise", "pair", "oracle", "length", "random", "mix"}
    assert values["oracle"] == max(values.values())
    assert values["noise"] < values["mix"] + 0.01
    mix = figures(found, "mix").aiq
    assert mix is not None
    assert mix.low is not None
    assert mix.low < mix.value
    assert figures(found, "pair").costs[0] == pytest.approx((1.0, made.quality[:, 0].mean()), abs=1e-6)
    assert found.costs == {"small": 1.0, "medium": 10.0, "large": 100.0}


def test_without_costs_there_is_no_aiq_and_a_note() -> None:
    """The note names `prices` and `costs`, the keys that would give one."""
    found = measure(benchmark(50, 3), {"mine": np.zeros((50, 1))}, seed=0, bootstrap=0, plot="x.png")
    assert all(one.aiq is None for one in found.routers.values())
    assert any("`prices` or `costs`" in note for note in found.notes)


def test_without_a_gap_auc_is_still_measured() -> None:
    """If the last model is no better, there is no APGR and no CPT, a note says so, and AUC is still measured."""
    made = benchmark(100)
    turned = Benchmark("turned", made.prompts, made.models, made.quality[:, ::-1])
    found = measure(turned, {"mine": np.arange(100.0)[:, None]}, seed=0, bootstrap=20, plot="x.png")
    mine = figures(found, "mine")
    assert (mine.apgr, mine.cpt) == (None, None)
    assert mine.auc.value > 0
    assert found.best_single == turned.models[0]
    assert any("no gap" in note for note in found.notes)


def test_a_gap_that_is_rounding_is_none() -> None:
    """Models that differ only by rounding have no APGR, no CPT and no figures by RouteLLM; a note says so."""
    quality = np.array([[0.3, 0.1], [0.5, 0.7]] * 50)
    weak, strong = quality.mean(axis=0)
    assert strong > weak
    made = Benchmark("equal", [f"p{i}" for i in range(100)], ("small", "large"), quality)
    found = measure(made, {"mine": np.arange(100.0)[:, None]}, seed=0, bootstrap=0, plot="x.png")
    mine = figures(found, "mine")
    assert (mine.apgr, mine.cpt, mine.routellm) == (None, None, None)
    assert any("no gap" in note for note in found.notes)


def test_the_same_seed_gives_the_same_figures() -> None:
    """The bootstrap is seeded too: the same seed gives equal figures and intervals, another seed different ones."""
    made, scores = benchmark(80), {"mine": np.arange(80.0)[:, None]}
    one, same, other = (measure(made, scores, seed=seed, bootstrap=50, plot="x.png") for seed in (3, 3, 4))
    assert one == same
    assert one != other


def test_grades_are_measured_as_they_are() -> None:
    """Quality mapped to grades from 1 to 10 leaves APGR unchanged and gives AUC in grades."""
    made = benchmark(200)
    graded = Benchmark("graded", made.prompts, made.models, 1 + 9 * made.quality, grades=True)
    scores = {"mine": np.random.default_rng(0).random((200, 1))}
    plain, found = (measure(one, scores, seed=0, bootstrap=0, plot="x.png") for one in (made, graded))
    ours, theirs = figures(found, "mine"), figures(plain, "mine")
    assert ours.apgr is not None
    assert theirs.apgr is not None
    assert ours.apgr.value == pytest.approx(theirs.apgr.value)
    assert ours.auc.value == pytest.approx(1 + 9 * theirs.auc.value)
