"""The job file."""

import math
import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, Tag, field_validator, model_validator

from schemas.base import InfinityMeansNone, Spec
from schemas.endpoints import ModelSpec
from schemas.imported import NAME_OR_IMPORT, ImportSpec
from schemas.plans import PinPlanSpec, PlanSpec
from schemas.routers import CorrectnessRouterSpec, RouterSpec, RulesRouterSpec

BalancerName = Literal[
    "weighted_round_robin",
    "least_connections",
    "round_robin",
    "random",
    "power_of_two",
    "peak_ewma",
    "adaptive",
    "consistent_hash",
    "priority",
]
BalancerSpec = Annotated[
    Annotated[BalancerName, Tag("name")] | Annotated[ImportSpec, Tag("import")],
    NAME_OR_IMPORT,
]


# Units of a duration, in seconds.
_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def _seconds(value: Any) -> Any:
    """`90 min`, `6 h`, `2d` and the like as seconds; anything else as it is."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.fullmatch(value.lower())
    if parts is None or parts[2] not in _UNITS:
        raise ValueError(f"{value!r} is no duration; write seconds, or a number and s, min, h or d, as '6 h'")
    return float(parts[1]) * _UNITS[parts[2]]


Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(gt=0)]
"""Seconds, or a number with a unit."""


class RaySpec(Spec):
    """Where Ray runs."""

    address: str | None = None
    """Left out: a local cluster for this run; `auto` or `ray://...`: join one."""


class CsvSpec(Spec):
    """How CSV files are written, where they do not show it."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What separates columns; left out: a tab in .tsv, else the comma, or what the header has instead of commas."""

    quote: Annotated[str, Field(max_length=1)] | None = '"'
    """What stands around values that hold delimiters or line ends; empty: quotes are ordinary characters."""

    escape: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands before a quote within a quoted value, as the backslash of Spark and MySQL; left out: quotes are
    doubled.
    """

    encoding: str | None = None
    """Encoding of the text, as `cp1252`; left out: UTF-8, or UTF-16 and UTF-32 by their byte order marks."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the columns of files without a header; left out: the first line has them."""

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding_of_text(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "".encode(encoding)
            except (LookupError, UnicodeError, ValueError) as error:
                raise ValueError(f"{encoding!r} is no encoding of text that Python knows, as cp1252") from error
        return encoding

    @field_validator("columns")
    @classmethod
    def _names_differ(cls, columns: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = next((name for name in columns or () if columns and columns.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two columns are called {twice!r}")
        return columns

    @model_validator(mode="after")
    def _characters_differ(self) -> "CsvSpec":
        if self.delimiter is not None and self.delimiter in (self.quote, self.escape):
            raise ValueError(f"{self.delimiter!r} cannot be the delimiter and the quote or escape character at once")
        if any(character in ("\n", "\r") for character in (self.delimiter, self.quote, self.escape)):
            raise ValueError("a line end always ends a record; delimiter, quote and escape are other characters")
        return self


class InputSpec(Spec):
    """The rows."""

    path: str | tuple[str, ...]
    """File, glob, folder or a list of them: .jsonl, .json, .csv, .tsv (also .gz, .zst, .bz2), .parquet, .arrow; any
    pyarrow filesystem URI.
    """

    id_column: str | None = None
    """Column with each row's id, `none` for made-up ids; left out: `custom_id` or `id`, unless ids repeat there, else
    `<file>:<row>`.
    """

    id_scope: Literal["input", "file"] = "input"
    """`input`: ids differ over the whole input; `file`: within each file, and results have `<file>:<id>`."""

    prompt: str | None = None
    """Template over the columns, as "{question}"; left out: the shape is found by itself."""

    shape: Literal["auto", "embeddings"] = "auto"
    """`auto`: the shape is found by itself; `embeddings`: `input`, or the prompt of the template, is to be embedded."""

    system: str | None = None
    """System message of rows that have none of their own; a template over the columns, as "{system_prompt}"."""

    params: dict[str, Any] = {}
    """Request parameters, as `temperature` or `max_tokens`, under each row's own."""

    row_params: Literal["auto", "honour", "ignore"] = "auto"
    """Columns with the name of a request parameter: `auto` sends them, with a template only those that are hardly
    ever data; `honour` sends all, `ignore` none.
    """

    row_models: Literal["honour", "ignore"] = "honour"
    """A row's own `model`: a name or alias pins it, `router-<kind>-<cutoff>` routes it; or all are routed by the
    plan.
    """

    on_invalid: Literal["record", "fail"] = "record"
    """`record`: a bad row becomes an `invalid` result; `fail`: the run ends before anything is sent."""

    limit: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Only the first so many rows."""

    csv: CsvSpec = CsvSpec()
    """How CSV files are written, where they do not show it."""

    @field_validator("prompt", "system", mode="before")
    @classmethod
    def _templates_are_quoted(cls, text: Any) -> Any:
        if isinstance(text, dict):
            said = "YAML takes braces without quotes for a mapping; write the template as '\"{question}\"'"
            raise ValueError(said)  # noqa: TRY004  pydantic reports ValueErrors only
        return text


# Timers and HTTP clients refuse some of what a float can hold, and no answer is waited for longer.
LONGEST_TIMEOUT_SECONDS = 7 * 86_400.0


class DispatchSpec(Spec):
    """How requests are sent."""

    balancer: BalancerSpec = "least_connections"
    """Which endpoint of a model's pool takes the next request."""

    hash_key: Annotated[str, Field(min_length=1)] = "prefix"
    """What `consistent_hash` goes by: `prefix` (the messages' beginning), `id` (the row's id) or an input column."""

    max_attempts: Annotated[int, Field(gt=0)] = 6
    """Attempts a row may have over all sittings of a run, the first included."""

    timeout_seconds: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)] = 600.0
    """Longest one attempt may take, a week at most; `.inf` is a week."""

    longest_wait: Duration = 6 * 3600.0
    """Longest time that endpoints may ask to stay away, as `90 min`, `6 h` or in seconds; beyond it the run stops."""

    on_ambiguous: Literal["retry", "fail"] = "retry"
    """Rows that were in flight when a run was killed: send again, or record as failed."""

    budget_usd: Annotated[Annotated[Decimal, Field(gt=0)] | None, InfinityMeansNone] = None
    """Hard cap on this run's spending, reserved before each request; rows beyond it stay unsent."""

    fallbacks: dict[str, tuple[str, ...]] = {}
    """Models to try, in order, when every endpoint of a model refuses for good."""

    dedup: Literal["auto", "on", "off"] = "auto"
    """Equal requests are sent once: `auto` only at temperature 0."""

    @field_validator("timeout_seconds", mode="before")
    @classmethod
    def _infinity_is_the_longest(cls, seconds: Any) -> Any:
        return LONGEST_TIMEOUT_SECONDS if seconds == math.inf else seconds

    @field_validator("dedup", mode="before")
    @classmethod
    def _words_of_yaml(cls, dedup: Any) -> Any:
        """YAML 1.1 takes a bare `on` or `off` for a truth value."""
        return {True: "on", False: "off"}[dedup] if isinstance(dedup, bool) else dedup


class OutputSpec(Spec):
    """Where results go."""

    path: str
    """A file, or a folder of parts (ending in /, or one that exists here); any pyarrow filesystem URI."""

    format: Literal["jsonl", "parquet", "openai_batch"] = "jsonl"
    """Format of the results."""

    run_dir: str | None = None
    """Run directory, on this machine; left out: `<path>.run`, of a URI `<last name>.run` beside the job file."""

    carry: bool = True
    """Carry the input's other columns into the results."""


def _as_files_are_read(schema: dict[str, Any]) -> None:
    """With one model there is nothing to plan, and keys that begin with `x-` hold anchors: editors cannot know."""
    schema["required"].remove("plan")
    schema["patternProperties"] = {"^x-": {}}


class JobSpec(Spec):
    """A batch job: which prompts, which router, which models, which plan, where to."""

    model_config = ConfigDict(json_schema_extra=_as_files_are_read)

    name: str = "job"
    """Name shown in progress and reports."""

    seed: int = 0
    """Seed of everything random."""

    engine: Literal["ray", "inline"] = "ray"
    """`inline` runs the same pipeline in this process."""

    ray: RaySpec = RaySpec()
    """Where Ray runs."""

    input: InputSpec
    """The rows."""

    router: RouterSpec = CorrectnessRouterSpec()
    """What scores them."""

    models: tuple[ModelSpec, ...] = Field(min_length=1)
    """Cheapest first, strongest last."""

    plan: PlanSpec
    """How scores become a model per row."""

    dispatch: DispatchSpec = DispatchSpec()
    """How requests are sent."""

    output: OutputSpec
    """Where results go."""

    @model_validator(mode="before")
    @classmethod
    def _one_model_needs_no_plan(cls, data: Any) -> Any:
        if isinstance(data, dict) and "plan" not in data:
            models = data.get("models")
            if isinstance(models, list | tuple) and len(models) == 1 and isinstance(models[0], dict):
                return {**data, "plan": {"strategy": "pin", "model": models[0].get("name", "")}}
        return data

    @model_validator(mode="after")
    def _names_are_known(self) -> "JobSpec":
        names = [name for model in self.models for name in (model.name, *model.aliases)]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice:
            raise ValueError(f"two models are called {twice!r}")
        own = [m.name for m in self.models]
        if isinstance(self.plan, PinPlanSpec) and self.plan.model not in own:
            raise ValueError(f"plan.model {self.plan.model!r} is not among the models: {', '.join(own)}")
        if isinstance(self.router, RulesRouterSpec):
            for rule in self.router.rules:
                if rule.model is not None and rule.model not in own:
                    raise ValueError(f"a rule names the model {rule.model!r}, which is not among: {', '.join(own)}")
        for source, targets in self.dispatch.fallbacks.items():
            for name in (source, *targets):
                if name not in own:
                    raise ValueError(
                        f"dispatch.fallbacks names {name!r}, which is not among the models: {', '.join(own)}"
                    )
        return self
