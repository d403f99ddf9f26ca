"""The evaluation file: which routers are measured on which benchmarks."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from schemas.base import Spec
from schemas.routers import RouterSpec

Paths = str | tuple[str, ...]

# Every evaluation shows these baselines beside the routers of its file.
ORACLE, RANDOM, LENGTH, BEST_SINGLE, MIX = "oracle", "random", "length", "best single", "mix"
BASELINES = (ORACLE, RANDOM, LENGTH, BEST_SINGLE, MIX)

# Names, in RouteLLM's response files, of the two models that its figures were published for.
_STRONG, _WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"


class _BenchmarkSpec(Spec):
    name: str | None = Field(default=None, min_length=1)
    """Name of the benchmark in figures and plots; left out: the kind, or for `labelled` the first file's name."""

    path: Paths = Field(min_length=1)
    """RouteLLM's files as they are, or a table with the same columns; for `labelled` files as in a job's input."""


class _RouteLLMSpec(_BenchmarkSpec):
    weak: str = _WEAK
    """The weak model, as the response files and the routers call it."""

    strong: str = _STRONG
    """The strong model."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models, weakest first."""
        return self.weak, self.strong


class Gsm8kSpec(_RouteLLMSpec):
    """GSM8K: grade-school maths."""

    kind: Literal["gsm8k"]
    """Always `gsm8k`."""


class MmluSpec(_RouteLLMSpec):
    """MMLU: multiple-choice questions on 57 subjects."""

    kind: Literal["mmlu"]
    """Always `mmlu`."""


class MtBenchSpec(_RouteLLMSpec):
    """MT-Bench: 80 questions of two turns, graded from 1 to 10; routers see the first turn."""

    kind: Literal["mt-bench"]
    """Always `mt-bench`."""


class LabelledSpec(_BenchmarkSpec):
    """Prompts of your own, with the judged quality of any number of models."""

    kind: Literal["labelled"]
    """Always `labelled`."""

    prompt: str = Field(default="prompt", min_length=1)
    """Column with the prompt, or a template over columns, such as "{question}"."""

    quality: dict[str, str] = Field(min_length=2)
    """For each model the column with its quality; cheapest model first, strongest last. Empty: the answer was not
    judged."""

    costs: dict[str, str] = {}
    """For each model the column with what its answer cost, in any unit; left out: `prices` counts."""

    by: str | None = None
    """Column that names the set a prompt belongs to; each set is then measured by itself."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models, cheapest first."""
        return tuple(self.quality)

    @model_validator(mode="after")
    def _costs_are_of_its_models(self) -> "LabelledSpec":
        if self.costs and set(self.costs) != set(self.quality):
            odd = min(set(self.costs) ^ set(self.quality))
            raise ValueError(f"costs and quality must name the same models; {odd!r} is in only one of them")
        return self


BenchmarkSpec = Annotated[Gsm8kSpec | MmluSpec | MtBenchSpec | LabelledSpec, Field(discriminator="kind")]


class EvalSpec(Spec):
    """Which routers are measured, and on which benchmarks."""

    routers: dict[str, RouterSpec] = Field(min_length=1)
    """The routers, by names of your choice, each as in a job. In a list, each router is named after its kind."""

    benchmarks: tuple[BenchmarkSpec, ...] = Field(min_length=1)
    """The judged prompts. Each benchmark is measured by itself; nothing is averaged over them."""

    prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    """What an answer of each model costs, in any unit; needed for figures of quality against cost."""

    seed: int = 0
    """Seed of the random router and of the bootstrap."""

    bootstrap: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """Number of resamples for the intervals; 0: no intervals."""

    output: str = Field(min_length=1)
    """Folder for `evaluation.json` and the plots."""

    cache: str | None = None
    """Folder that keeps scores; several evaluations may share one. Left out: `cache` in `output`."""

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_named_by_kind(cls, data: Any) -> Any:
        routers = data.get("routers") if isinstance(data, dict) else None
        if not isinstance(routers, list):
            return data
        named: dict[str, Any] = {}
        for place, router in enumerate(routers):
            kind = router.get("kind") if isinstance(router, dict) else None
            name = kind if isinstance(kind, str) else str(place)
            taken = name in named or name in BASELINES
            named[f"{name} {place + 1}" if taken else name] = router
        return {**data, "routers": named}

    @model_validator(mode="after")
    def _names_are_known_and_differ(self) -> "EvalSpec":
        reserved = next((name for name in self.routers if name in BASELINES), None)
        if reserved is not None:
            raise ValueError(f"the router {reserved!r} has the name of a baseline that is always measured; rename it")
        names = [one.name or one.kind for one in self.benchmarks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two benchmarks are called {twice!r}; give each a `name`")
        known = {model for one in self.benchmarks for model in one.models}
        unknown = next((model for model in self.prices if model not in known), None)
        if unknown is not None:
            raise ValueError(f"prices names {unknown!r}, which is not among the models: {', '.join(sorted(known))}")
        return self
