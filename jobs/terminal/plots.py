"""Plots a benchmark: quality against the share of strong calls and, if costs are known, against cost."""

from io import BytesIO
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, filterwarnings

import numpy as np

from batch.measures.cost_quality import hull
from jobs.terminal.format import counted, printable
from schemas.evaluation_report import BenchmarkFigures, RouterFigures
from schemas.evaluation_spec import BEST_SINGLE, LENGTH, MIX, ORACLE, RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 150
_WIDTH, _HEIGHT = 7.5, 5.0
# Colours that people with red-green blindness can distinguish (Okabe and Ito), ordered so that neighbours differ.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "#777777"
# Longer names in the legend would leave too little room for the curves.
_LONGEST_NAME = 40
# zorder of routers; matplotlib draws lines at 2.
_ABOVE = 3
# Least range of the axis of quality, in its unit.
_LEAST_HEIGHT = 0.2


def plot_benchmark(benchmark: BenchmarkFigures) -> bytes:
    """Draw the plot of a benchmark, as a PNG."""
    from matplotlib import rc_context

    # A dollar sign in a name of the user's would begin a formula.
    with rc_context({"text.parse_math": False}), catch_warnings():
        # A letter that the font lacks is drawn as a box; the table and the JSON show it.
        filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        return _drawn(benchmark)


def _drawn(benchmark: BenchmarkFigures) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with_costs = any(figures.costs for figures in benchmark.routers.values())
    figure = Figure(figsize=(_WIDTH * (2 if with_costs else 1), _HEIGHT), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if with_costs else 1, squeeze=False)[0]
    _draw_shares(axes[0], benchmark)
    if with_costs:
        _draw_costs(axes[1], benchmark)
    figure.suptitle(f"{_short(benchmark.name)} ({counted(benchmark.prompts, 'prompt')})", fontsize=12)
    out = BytesIO()
    # Without date and version in the file, equal figures give equal bytes.
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def _draw_shares(axes: "Axes", benchmark: BenchmarkFigures) -> None:
    unit = 1.0 if benchmark.grades else 100.0
    names = list(benchmark.models)
    weak, strong = (benchmark.models[name] * unit for name in (names[0], names[-1]))
    axes.axhline(strong, color=_GREY, linewidth=0.8, linestyle=":")
    axes.axhline(weak, color=_GREY, linewidth=0.8, linestyle=":")
    for name, figures in _best_first(benchmark):
        if name == RANDOM:
            # What ten random routers drew wobbles around what they are expected to.
            axes.plot([0, 100], [weak, strong], color=_GREY, linestyle="--", linewidth=1.2, label=_label(name, figures))
            continue
        xs, ys = zip(*figures.curve, strict=True)
        axes.plot(
            [100 * x for x in xs],
            [unit * y for y in ys],
            label=_label(name, figures),
            **_style(name, benchmark),
        )
    for value, name, above in ((strong, names[-1], strong >= weak), (weak, names[0], weak > strong)):
        axes.annotate(
            _short(name),
            (100, value) if value == weak else (0, value),
            xytext=(-3 if value == weak else 3, 3 if above else -3),
            textcoords="offset points",
            ha="right" if value == weak else "left",
            va="bottom" if above else "top",
            fontsize=8,
            color=_GREY,
        )
    axes.set_xlim(0, 100)
    axes.margins(y=0.08)
    axes.set_xlabel(f"prompts answered by {_short(names[-1])} (%)")
    axes.set_ylabel(_quality_label(benchmark))
    _finish(axes)


def _draw_costs(axes: "Axes", benchmark: BenchmarkFigures) -> None:
    unit = 1.0 if benchmark.grades else 100.0
    assert benchmark.costs is not None, "operating points have costs"
    for name, figures in _best_first(benchmark):
        if figures.costs:
            xs, ys = zip(*figures.costs, strict=True)
            aiq = "" if figures.aiq is None else f", AIQ {figures.aiq.value * unit:.1f}"
            label = _listed(name) + aiq
            axes.plot(xs, [unit * y for y in ys], label=label, **_style(name, benchmark))
    _draw_mix(axes, benchmark, unit)
    dearest = max(benchmark.costs.values())
    for name, cost in benchmark.costs.items():
        axes.plot([cost], [benchmark.models[name] * unit], marker="o", color=_GREY, markersize=5, linestyle="")
        axes.annotate(
            _short(name),
            (cost, benchmark.models[name] * unit),
            xytext=(-5, 5) if cost == dearest else (5, -5),
            textcoords="offset points",
            ha="right" if cost == dearest else "left",
            va="bottom" if cost == dearest else "top",
            fontsize=8,
            color=_GREY,
        )
    axes.margins(x=0.12, y=0.08)
    axes.set_xlabel("mean cost of an answer")
    axes.set_ylabel(_quality_label(benchmark))
    _finish(axes)


def _finish(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)
    # If all values are equal, an automatic axis would show rounding errors as differences.
    low, high = axes.get_ylim()
    if high - low < _LEAST_HEIGHT:
        axes.set_ylim((low + high - _LEAST_HEIGHT) / 2, (low + high + _LEAST_HEIGHT) / 2)
    # Curves may run anywhere, so the legend is placed beside them.
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.0)


def _quality_label(benchmark: BenchmarkFigures) -> str:
    return "mean grade" if benchmark.grades else "right answers (%)"


def _draw_mix(axes: "Axes", benchmark: BenchmarkFigures, unit: float) -> None:
    """Draw the hull of the models themselves: what a random choice between two models reaches."""
    assert benchmark.costs is not None, "operating points have costs"
    xs, ys = hull(np.array(list(benchmark.costs.values())), np.array(list(benchmark.models.values())))
    mixed = benchmark.routers[MIX].aiq
    label = MIX if mixed is None else f"{MIX} of models, AIQ {mixed.value * unit:.1f}"
    axes.plot(xs, unit * ys, color=_GREY, linestyle="--", linewidth=1.2, label=label)


def _best_first(benchmark: BenchmarkFigures) -> list[tuple[str, RouterFigures]]:
    """Routers with a curve, best first, then baselines with a curve."""

    def rank(item: tuple[str, RouterFigures]) -> tuple[bool, float]:
        apgr = item[1].apgr
        return item[1].role == "baseline", 0.0 if apgr is None else -apgr.value

    return sorted(((name, one) for name, one in benchmark.routers.items() if one.curve), key=rank)


def _label(name: str, figures: RouterFigures) -> str:
    return _listed(name) if figures.apgr is None else f"{_listed(name)}, APGR {figures.apgr.value:.3f}"


def _listed(name: str) -> str:
    """A name for the legend, from which matplotlib leaves out names that begin with an underscore."""
    return f" {_short(name)}" if name.startswith("_") else _short(name)


def _short(name: str) -> str:
    return printable(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}\N{HORIZONTAL ELLIPSIS}")


def _style(name: str, benchmark: BenchmarkFigures) -> dict[str, Any]:
    """Routers are drawn in colour, baselines in grey and below them."""
    if name == ORACLE:
        return {"color": _GREY, "linewidth": 1.2, "linestyle": "-."}
    if name == LENGTH:
        return {"color": _GREY, "linewidth": 1.2}
    asked = [one for one in benchmark.routers if one not in (RANDOM, BEST_SINGLE, MIX, ORACLE, LENGTH)]
    return {"color": _COLOURS[asked.index(name) % len(_COLOURS)], "linewidth": 1.8, "zorder": _ABOVE}
