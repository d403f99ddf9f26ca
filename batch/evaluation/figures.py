"""From a benchmark and routers' predictions to figures, beside the baselines that every router is compared with."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np

from batch.arrays import Floats
from batch.evaluation.benchmark import Benchmark
from batch.measures.bootstrap import groups_of, interval, resampled
from batch.measures.cost_quality import Sweep, aiq, sweep, sweep_of_pair
from batch.measures.pair import PairMeasures, PairOrder, least_gap
from batch.measures.routellm import LEVELS, ProtocolCurve, protocol_curve, protocol_figures, protocol_mean
from batch.routers.length import LengthRouter
from batch.routers.random import RandomRouter
from schemas.evaluation_report import BenchmarkFigures, Figure, Point, RouteLLMFigures, RouterFigures
from schemas.evaluation_spec import BEST_SINGLE, LENGTH, MIX, ORACLE, RANDOM

# On a small benchmark a single random router may have any figure; the mean of ten is near the expected one.
RANDOM_ROUTERS = 10


# RouteLLM's program multiplies right answers by 100, to percent, and takes grades as they are.
_UNIT, _UNIT_OF_GRADES = 100.0, 1.0
_GRID = np.linspace(0.0, 1.0, 101)
_DIGITS = 6


def measure(
    benchmark: Benchmark, predicted: Mapping[str, Floats], *, seed: int, bootstrap: int, plot: str
) -> BenchmarkFigures:
    """Measure routers and baselines on one benchmark.

    Args:
        predicted: each router's scores by its name: shape (prompts, 1) for how much a prompt needs the strongest model,
            or (prompts, models) for each model's quality, NaN for a model that the router does not know.
        seed: of random routers and of the bootstrap.
        bootstrap: resamples; the same ones for all routers.
        plot: file name of the plot.
    """
    entrants = {name: _Entrant(benchmark, scores) for name, scores in predicted.items()}
    entrants[ORACLE] = _Entrant(benchmark, benchmark.quality)
    entrants[LENGTH] = _Entrant(benchmark, _words(benchmark))
    lots = [_Entrant(benchmark, _lots(benchmark, seed + more)) for more in range(RANDOM_ROUTERS)]
    samples = _sampled(benchmark, entrants, lots, seed=seed, bootstrap=bootstrap)
    means = benchmark.quality.mean(axis=0)
    best = int(means.argmax())
    routers = {
        name: _figures(samples[name], entrant, "router" if name in predicted else "baseline", benchmark)
        for name, entrant in entrants.items()
    }
    routers[RANDOM] = _random(samples[RANDOM], lots, benchmark)
    routers[BEST_SINGLE] = RouterFigures(role="baseline", auc=_figure(samples[BEST_SINGLE]["auc"]))
    if MIX in samples:
        routers[MIX] = RouterFigures(role="baseline", auc=_figure(samples[MIX]["auc"]), aiq=_known(samples[MIX]["aiq"]))
    costs = None if benchmark.cost is None else benchmark.cost.mean(axis=0)
    return BenchmarkFigures(
        name=benchmark.name,
        prompts=len(benchmark.prompts),
        duplicates=len(benchmark.prompts) - len(set(benchmark.prompts)),
        models=_by_model(benchmark, means),
        costs=None if costs is None else _by_model(benchmark, costs),
        best_single=benchmark.models[best],
        grades=benchmark.grades,
        routers=routers,
        notes=(*benchmark.notes, *_gap_notes(benchmark, means), *_interval_notes(routers[ORACLE], bootstrap)),
        plot=plot,
    )


class _Entrant:
    """What a router or baseline is measured by: its order of prompts and, if costs are known, its sweep of them."""

    def __init__(self, benchmark: Benchmark, predicted: Floats) -> None:
        pair = predicted.shape[1] == 1
        self.scores = predicted[:, 0] if pair else predicted[:, -1] - predicted[:, 0]
        weak, strong = _ends(benchmark)
        self.order = PairOrder(self.scores, weak, strong)
        self.swept: Sweep | None = None
        if _has_costs(benchmark) and benchmark.cost is not None:
            prices, models = benchmark.cost.mean(axis=0), len(benchmark.models)
            known = np.where(np.isfinite(predicted), predicted, -np.inf)
            self.swept = sweep_of_pair(self.scores, models, prices) if pair else sweep(known, prices)


_Samples = dict[str, list[float]]


def _sampled(
    benchmark: Benchmark, entrants: Mapping[str, _Entrant], lots: list[_Entrant], *, seed: int, bootstrap: int
) -> dict[str, _Samples]:
    """Every measure of every router and baseline: first over all prompts, then on each resample."""
    samples: dict[str, _Samples] = defaultdict(lambda: defaultdict(list))
    everything = np.ones((1, len(benchmark.prompts)))
    drawn = resampled(groups_of(benchmark.prompts), bootstrap, seed) if bootstrap else ()
    for weights in chain([everything], drawn):
        for name, entrant in entrants.items():
            _add(samples[name], entrant, benchmark, weights)
        for at, entrant in enumerate(lots):
            # Each random router takes a tenth of the resamples: all of them would give no better interval.
            part = weights if weights is everything else weights[at :: len(lots)]
            if len(part):
                _add(samples[RANDOM], entrant, benchmark, part)
        _add_singles(samples, benchmark, weights)
    return samples


def _add(samples: _Samples, entrant: _Entrant, benchmark: Benchmark, weights: Floats) -> None:
    found: PairMeasures = entrant.order.measures(weights, LEVELS)
    samples["apgr"] += found.apgr.tolist()
    samples["auc"] += found.auc.tolist()
    for level, column in zip(LEVELS, found.cpt.T, strict=True):
        samples[_percent(level)] += column.tolist()
    if entrant.swept is None or benchmark.cost is None:
        return
    costs, quality = entrant.swept.points(benchmark.quality, benchmark.cost, weights)
    ends = _means(benchmark.cost, weights)
    samples["aiq"] += [_aiq(*row) for row in zip(costs, quality, ends, strict=True)]


def _add_singles(samples: dict[str, _Samples], benchmark: Benchmark, weights: Floats) -> None:
    quality = _means(benchmark.quality, weights)
    best = int(benchmark.quality.mean(axis=0).argmax())
    samples[BEST_SINGLE]["auc"] += quality[:, best].tolist()
    if not _has_costs(benchmark) or benchmark.cost is None:
        return
    costs = _means(benchmark.cost, weights)
    samples[MIX]["auc"] += quality[:, [0, -1]].mean(axis=1).tolist()
    samples[MIX]["aiq"] += [_aiq(cost, row, cost) for cost, row in zip(costs, quality, strict=True)]


def _aiq(costs: Floats, quality: Floats, ends: Floats) -> float:
    low, high = float(ends.min()), float(ends.max())
    return aiq(costs, quality, low, high) if high > low else float("nan")


def _means(values: Floats, weights: Floats) -> Floats:
    means: Floats = weights @ values / weights.sum(axis=1, keepdims=True)
    return means


def _figures(samples: _Samples, entrant: _Entrant, role: str, benchmark: Benchmark) -> RouterFigures:
    curve = entrant.order.curve()
    quality = np.interp(_GRID, curve.share, curve.quality)
    return RouterFigures(
        role="router" if role == "router" else "baseline",
        apgr=_known(samples["apgr"]),
        cpt=_crossings(samples),
        auc=_figure(samples["auc"]),
        aiq=_known(samples["aiq"]),
        routellm=_protocol([entrant], benchmark),
        curve=tuple(_points(_GRID, quality)),
        costs=tuple(_operating_points(entrant, benchmark)),
    )


def _random(samples: _Samples, lots: list[_Entrant], benchmark: Benchmark) -> RouterFigures:
    """The mean of the random routers; its interval is that of a single one."""
    averaged: _Samples = {
        name: [float(np.mean(values[: len(lots)])), *values[len(lots) :]] for name, values in samples.items()
    }
    curves = [entrant.order.curve() for entrant in lots]
    quality = np.mean([np.interp(_GRID, curve.share, curve.quality) for curve in curves], axis=0)
    return RouterFigures(
        role="baseline",
        apgr=_known(averaged["apgr"]),
        cpt=_crossings(averaged),
        auc=_figure(averaged["auc"]),
        aiq=_known(averaged.get("aiq", [])),
        routellm=_protocol(lots, benchmark),
        curve=tuple(_points(_GRID, quality)),
    )


def _protocol(entrants: list[_Entrant], benchmark: Benchmark) -> RouteLLMFigures | None:
    """The figures that RouteLLM's program gives one router, or the mean of several; `None` if they are not defined."""
    weak, strong = _ends(benchmark)
    unit = _UNIT_OF_GRADES if benchmark.grades else _UNIT
    try:
        curves: list[ProtocolCurve] = [protocol_curve(entrant.scores, weak, strong) for entrant in entrants]
        found = protocol_figures(
            protocol_mean(curves) if len(curves) > 1 else curves[0], weak.mean(), strong.mean(), unit=unit
        )
    except ValueError:
        return None
    crossings = {_percent(level): share for level, share in zip(LEVELS, found.cpt, strict=True)}
    return RouteLLMFigures(apgr=found.apgr, cpt=crossings, auc=found.auc)


def _crossings(samples: _Samples) -> dict[str, Figure] | None:
    found = {_percent(level): _known(samples[_percent(level)]) for level in LEVELS}
    known = {name: figure for name, figure in found.items() if figure is not None}
    return known if len(known) == len(found) else None


def _known(values: list[float]) -> Figure | None:
    """The figure with its interval; `None` if it is not defined over all prompts."""
    return _figure(values) if values and np.isfinite(values[0]) else None


def _figure(values: list[float]) -> Figure:
    bounds = interval(np.array(values[1:])) if len(values) > 1 else None
    low, high = bounds if bounds is not None else (None, None)
    return Figure(value=values[0], low=low, high=high)


def _operating_points(entrant: _Entrant, benchmark: Benchmark) -> Iterator[Point]:
    if entrant.swept is not None and benchmark.cost is not None:
        everything = np.ones((1, len(benchmark.prompts)))
        costs, quality = entrant.swept.points(benchmark.quality, benchmark.cost, everything)
        yield from _points(costs[0], quality[0])


def _points(xs: Floats, ys: Floats) -> Iterator[Point]:
    return ((round(float(x), _DIGITS), round(float(y), _DIGITS)) for x, y in zip(xs, ys, strict=True))


def _gap_notes(benchmark: Benchmark, means: Floats) -> Iterator[str]:
    weak, strong = benchmark.models[0], benchmark.models[-1]
    if not means[-1] - means[0] > least_gap(*_ends(benchmark)):
        yield f"{strong} is no better than {weak} here, so there is no gap to recover: no APGR and no CPT"
    if len(benchmark.models) > 2 and benchmark.cost is None:
        yield "AIQ needs what an answer of each model costs: give `prices` or `costs`"
    if _has_costs(benchmark) and benchmark.cost is not None and np.ptp(benchmark.cost.mean(axis=0)) == 0:
        yield "all models cost the same, so there is no AIQ"


def _interval_notes(oracle: RouterFigures, bootstrap: int) -> Iterator[str]:
    # The same resamples are without a gap for every router.
    if bootstrap and oracle.apgr is not None and oracle.apgr.low is None:
        yield "the gap is so small that many resamples have none, so APGR and CPT have no intervals"


def _has_costs(benchmark: Benchmark) -> bool:
    return benchmark.cost is not None and len(benchmark.models) > 2


def _ends(benchmark: Benchmark) -> tuple[Floats, Floats]:
    return benchmark.quality[:, 0], benchmark.quality[:, -1]


def _words(benchmark: Benchmark) -> Floats:
    return LengthRouter(benchmark.models[-1], 60.0).score(benchmark.prompts).astype(np.float64)


def _lots(benchmark: Benchmark, seed: int) -> Floats:
    return RandomRouter(benchmark.models[-1], seed).score(benchmark.prompts).astype(np.float64)


def _by_model(benchmark: Benchmark, values: Floats) -> dict[str, float]:
    return {model: float(value) for model, value in zip(benchmark.models, values, strict=True)}


def _percent(level: float) -> str:
    return f"{100 * level:.0f}"
