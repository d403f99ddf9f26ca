"""The report of an evaluation, as `evaluation.json` stores it."""

from typing import Literal

from schemas.base import Spec

Point = tuple[float, float]


class Figure(Spec):
    """A figure with its interval."""

    value: float
    """The figure over all prompts."""

    low: float | None = None
    """Lower end of the middle 95 % of the bootstrap resamples; `None`: there is no interval."""

    high: float | None = None
    """Upper end of the middle 95 % of the bootstrap resamples; `None`: there is no interval."""


class RouteLLMFigures(Spec):
    """Figures by RouteLLM's protocol, to compare with published ones."""

    apgr: float
    """APGR over eleven cutoffs."""

    cpt: dict[str, float]
    """Share of strong calls that recovers 20, 50 and 80 % of the gap, interpolated on a curve that may also fall."""

    auc: float
    """Area under the eleven points."""


class RouterFigures(Spec):
    """One router on one benchmark. Figures for two models are those of the first and the last."""

    role: Literal["router", "baseline"]
    """`router`: the evaluation file names it; `baseline`: every evaluation measures it."""

    apgr: Figure | None = None
    """Area under the curve of the share of the quality gap that is recovered, against the share of strong calls; one
    half for a random router. `None`: there is no gap, or no choice."""

    cpt: dict[str, Figure] | None = None
    """Smallest share of strong calls that recovers 20, 50 and 80 % of the gap."""

    auc: Figure
    """Area under the curve of quality against the share of strong calls."""

    aiq: Figure | None = None
    """Mean quality along the non-decreasing hull of quality against cost (RouterBench); `None`: costs are not known, or
    there are only two models."""

    routellm: RouteLLMFigures | None = None
    """Figures by RouteLLM's protocol; `None`: it does not apply, for example because too many scores are equal."""

    curve: tuple[Point, ...] = ()
    """Points of (share of strong calls, quality), one for every hundredth of the share."""

    costs: tuple[Point, ...] = ()
    """Points of (mean cost, mean quality): operating points over all models."""

    notes: tuple[str, ...] = ()
    """What a reader should know about these figures, one line each."""


class BenchmarkFigures(Spec):
    """The figures of one benchmark."""

    name: str
    """The benchmark's name."""

    prompts: int
    """Prompts that were measured."""

    duplicates: int
    """Of these, repeats of another prompt; the bootstrap draws equal prompts together."""

    models: dict[str, float]
    """Mean quality of each model, cheapest first."""

    costs: dict[str, float] | None
    """Mean cost of each model's answers; `None`: unknown."""

    best_single: str
    """The model with the highest mean quality."""

    grades: bool
    """Whether quality is a grade; otherwise it is from 0 to 1."""

    routers: dict[str, RouterFigures]
    """The routers in the order of the file, then the baselines."""

    notes: tuple[str, ...]
    """What a reader should know about these figures, one line each."""

    plot: str
    """File name of the plot, in the same folder."""


class Evaluation(Spec):
    """The report of `batchrouter evaluate`."""

    benchmarks: tuple[BenchmarkFigures, ...]
    """The benchmarks in the order of the file."""

    not_evaluated: dict[str, str]
    """Routers that could not be measured, each with the reason in one line."""

    scored: int
    """Prompts that routers scored; scores in the cache are not counted."""

    spent: tuple[str, ...] = ()
    """What embedding endpoints cost, one line each."""

    seed: int
    """The seed."""

    bootstrap: int
    """Number of resamples."""

    output: str
    """Folder of the report and the plots."""
