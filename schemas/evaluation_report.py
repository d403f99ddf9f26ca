"""What an evaluation found: `evaluation.json`."""

from typing import Literal

from schemas.base import Spec

Point = tuple[float, float]


class Figure(Spec):
    """A measure, and how far chance may move it."""

    value: float
    """Over all prompts."""

    low: float | None = None
    """The middle 95 % of bootstrap resamples begin here; `None`: not told."""

    high: float | None = None
    """And end here."""


class RouteLLMFigures(Spec):
    """The same by RouteLLM's protocol, for comparing with published figures."""

    apgr: float
    """APGR over eleven cutoffs."""

    cpt: dict[str, float]
    """Share of strong calls that recovers 20, 50 and 80 % of the gap, by interpolation over a curve that need not
    rise."""

    auc: float
    """Area under the eleven points."""


class RouterFigures(Spec):
    """One router on one benchmark. Between two models: the first and the last."""

    role: Literal["router", "baseline"]
    """Asked for, or always there?"""

    apgr: Figure | None = None
    """Area under the share of the quality gap recovered against the share of strong calls; one half for a random
    router. `None`: there is no gap, or no choice."""

    cpt: dict[str, Figure] | None = None
    """Smallest share of strong calls that recovers 20, 50 and 80 % of the gap."""

    auc: Figure
    """Area under quality against the share of strong calls."""

    aiq: Figure | None = None
    """Mean quality along the non-decreasing hull of quality against cost (RouterBench); `None`: costs are not known, or
    there are only two models."""

    routellm: RouteLLMFigures | None = None
    """`None`: it cannot be measured, as where too many scores are equal."""

    curve: tuple[Point, ...] = ()
    """Share of strong calls, quality: at every hundredth."""

    costs: tuple[Point, ...] = ()
    """Mean cost, mean quality: operating points over all models."""

    notes: tuple[str, ...] = ()
    """What to know of these figures."""


class BenchmarkFigures(Spec):
    """One benchmark."""

    name: str
    """Its name."""

    prompts: int
    """Prompts measured on."""

    duplicates: int
    """Of these, repeats of another; they are drawn together in the bootstrap."""

    models: dict[str, float]
    """Mean quality of each model, cheapest first."""

    costs: dict[str, float] | None
    """Mean cost of each model's answer; `None`: not known."""

    best_single: str
    """The model with the highest mean quality."""

    grades: bool
    """Is quality a grade? Otherwise it is between 0 and 1."""

    routers: dict[str, RouterFigures]
    """Routers in the order asked for, then baselines."""

    notes: tuple[str, ...]
    """What to know of these figures."""

    plot: str
    """Its picture, in the same folder."""


class Evaluation(Spec):
    """What `batchrouter evaluate` found."""

    benchmarks: tuple[BenchmarkFigures, ...]
    """In the order asked for."""

    not_evaluated: dict[str, str]
    """Routers that could not be built, and why, in a line."""

    scored: int
    """Prompts that models had to score: those not in the cache."""

    spent: tuple[str, ...] = ()
    """What embedding endpoints cost, in a line."""

    seed: int
    """The seed."""

    bootstrap: int
    """Resamples."""

    output: str
    """Folder of this."""
