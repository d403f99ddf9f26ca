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
    """Converts texts such as `90 min`, `6 h` or `2d` to seconds; returns any other value as it is."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.fullmatch(value.lower())
    if parts is None or parts[2] not in _UNITS:
        raise ValueError(f"{value!r} is no duration; write seconds, or a number and s, min, h or d, as in '6 h'")
    return float(parts[1]) * _UNITS[parts[2]]


Duration = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str), Field(gt=0)]
"""Seconds, or a number with a unit."""


class RaySpec(Spec):
    """Where Ray runs."""

    address: str | None = None
    """Address of a running cluster: `auto` or `ray://...`; left out: the run starts a local cluster for itself."""


class CsvSpec(Spec):
    """The dialect of CSV files, for what the files themselves do not show."""

    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between columns; left out: a tab in .tsv, else a comma, or what the header has instead of commas."""

    quote: Annotated[str, Field(max_length=1)] | None = '"'
    """Character around values that contain delimiters or line ends; empty: quotes are ordinary characters."""

    escape: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character before a quote within a quoted value, such as the backslash of Spark and MySQL; left out: a quote is
    doubled.
    """

    encoding: str | None = None
    """Encoding of the text, such as `cp1252`; left out: UTF-8, or UTF-16 and UTF-32 by their byte order marks."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Names of the columns, for files without a header; left out: the first line is the header."""

    @field_validator("encoding")
    @classmethod
    def _is_an_encoding_of_text(cls, encoding: str | None) -> str | None:
        if encoding is not None:
            try:
                "".encode(encoding)
            except (LookupError, UnicodeError, ValueError) as error:
                raise ValueError(f"{encoding!r} is no encoding of text that Python knows, such as cp1252") from error
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
    """Which files hold the rows, and how they become requests."""

    path: str | tuple[str, ...]
    """File, glob, folder or a list of them: .jsonl, .json, .csv, .tsv (also .gz, .zst, .bz2), .parquet, .arrow; any
    pyarrow filesystem URI.
    """

    id_column: str | None = None
    """Column with each row's id; `none`: every id is `<file>:<row>`. Left out: the column `custom_id` or `id`, unless
    ids repeat in it, else `<file>:<row>`.
    """

    id_scope: Literal["input", "file"] = "input"
    """`input`: ids are unique over the whole input; `file`: ids are unique in each file, and results show
    `<file>:<id>`.
    """

    prompt: str | None = None
    """Template over the columns, such as "{question}"; left out: the shape of the rows decides."""

    shape: Literal["auto", "embeddings"] = "auto"
    """`auto`: the rows themselves show their shape; `embeddings`: the column `input`, or what the template yields, is
    to be embedded.
    """

    system: str | None = None
    """System message for rows without one of their own: a template over the columns, such as "{system_prompt}"."""

    params: dict[str, Any] = {}
    """Request parameters, such as `temperature` or `max_tokens`; a row's own parameters take precedence."""

    row_params: Literal["auto", "honour", "ignore"] = "auto"
    """Columns that are named like a request parameter. `auto` sends them; if there is a template, only those that are
    hardly ever data. `honour` sends all of them, `ignore` none.
    """

    row_models: Literal["honour", "ignore"] = "honour"
    """`honour`: a row's own `model` decides; a name or alias pins the row to that model, and `router-<kind>-<cutoff>`
    routes it by that router and cutoff. `ignore`: the plan decides about every row.
    """

    on_invalid: Literal["record", "fail"] = "record"
    """`record`: a row that cannot be sent gets the status `invalid`; `fail`: the run ends before it sends anything."""

    limit: Annotated[Annotated[int, Field(gt=0)] | None, InfinityMeansNone] = None
    """Number of rows to take, from the first on; left out: all."""

    csv: CsvSpec = CsvSpec()
    """The dialect of CSV files, for what the files themselves do not show."""

    @field_validator("prompt", "system", mode="before")
    @classmethod
    def _templates_are_quoted(cls, text: Any) -> Any:
        if isinstance(text, dict):
            message = "YAML takes braces without quotes for a mapping; write the template as '\"{question}\"'"
            raise ValueError(message)  # noqa: TRY004  pydantic reports ValueErrors only
        return text


# Timers and HTTP clients refuse some values that a float can hold, and no answer takes longer than a week.
LONGEST_TIMEOUT_SECONDS = 7 * 86_400.0


class DispatchSpec(Spec):
    """How requests are sent."""

    balancer: BalancerSpec = "least_connections"
    """Chooses the endpoint of a model's pool that gets the next request."""

    hash_key: Annotated[str, Field(min_length=1)] = "prefix"
    """What `consistent_hash` hashes: `prefix` (the start of the messages), `id` (the row's id) or an input column."""

    max_attempts: Annotated[int, Field(gt=0)] = 6
    """Most attempts for a row, the first included, over all sittings of a run."""

    timeout_seconds: Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT_SECONDS)] = 600.0
    """Longest duration of one attempt, a week at most; `.inf` means a week."""

    longest_wait: Duration = 6 * 3600.0
    """Longest pause that endpoints may ask for, in seconds or such as `90 min` or `6 h`; if they ask for a longer one,
    the run stops.
    """

    on_ambiguous: Literal["retry", "fail"] = "retry"
    """Rows that were in flight when a run was killed: `retry` sends them again, `fail` records them as failed."""

    budget_usd: Annotated[Annotated[Decimal, Field(gt=0)] | None, InfinityMeansNone] = None
    """Most that the run may spend, in US dollars. Each request reserves its highest cost before it is sent; rows for
    which too little is left stay unsent.
    """

    fallbacks: dict[str, tuple[str, ...]] = {}
    """For each model, the models that answer its rows, in this order, once all of its endpoints refuse permanently."""

    dedup: Literal["auto", "on", "off"] = "auto"
    """Whether equal requests are sent only once: `auto` (at temperature 0), `on` or `off`."""

    @field_validator("timeout_seconds", mode="before")
    @classmethod
    def _infinity_is_the_longest(cls, seconds: Any) -> Any:
        return LONGEST_TIMEOUT_SECONDS if seconds == math.inf else seconds

    @field_validator("dedup", mode="before")
    @classmethod
    def _words_of_yaml(cls, dedup: Any) -> Any:
        """YAML 1.1 reads `on` and `off` without quotes as truth values."""
        return {True: "on", False: "off"}[dedup] if isinstance(dedup, bool) else dedup


class OutputSpec(Spec):
    """Where results go."""

    path: str
    """A file, or a folder of parts (a path that ends in /, or a folder that exists); any pyarrow filesystem URI."""

    format: Literal["jsonl", "parquet", "openai_batch"] = "jsonl"
    """Format of the results."""

    run_dir: str | None = None
    """Run directory, on this machine; left out: `<path>.run`, or for a URI `<last name>.run` beside the job file."""

    carry: bool = True
    """`true`: results also have the other columns of the input."""


def _as_files_are_read(schema: dict[str, Any]) -> None:
    """Tell editors what the fields do not show: a job with one model needs no plan, and `x-` keys hold anchors."""
    schema["required"].remove("plan")
    schema["patternProperties"] = {"^x-": {}}


class JobSpec(Spec):
    """A batch job: its input, router, models, plan and output."""

    model_config = ConfigDict(json_schema_extra=_as_files_are_read)

    name: str = "job"
    """Name shown in progress and reports."""

    seed: int = 0
    """Seed of everything random."""

    engine: Literal["ray", "inline"] = "ray"
    """`ray`: the run uses Ray, on this machine or a cluster; `inline`: it uses only its own process."""

    ray: RaySpec = RaySpec()
    """Where Ray runs."""

    input: InputSpec
    """Which files hold the rows, and how they become requests."""

    router: RouterSpec = CorrectnessRouterSpec()
    """Scores the prompts."""

    models: tuple[ModelSpec, ...] = Field(min_length=1)
    """The models, cheapest first and strongest last."""

    plan: PlanSpec
    """Turns scores into a model for each row."""

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
