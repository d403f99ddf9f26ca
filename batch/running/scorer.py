"""Scores the rows of a shard: one router behind a batch interface, in this process or inside a Ray actor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from batch.environment import NO_ENVIRONMENT, Environment
from batch.reading.columns import ASKED, BODY, CARRY, ERROR_KIND, ERROR_MESSAGE, LINE, TEXT
from batch.routers.base import Router
from batch.routers.registry import ROW_KINDS, build_router, row_spec
from batch.routers.rules import RulesRouter
from batch.routers.scores import ranking_scores, scores_of
from batch.runs.schemas import SCORE_FIELDS, quality_field
from schemas.endpoints import ModelSpec
from schemas.job import JobSpec
from schemas.plans import PinPlanSpec
from schemas.routers import RouterSpec

if TYPE_CHECKING:
    import pyarrow as pa

UNKNOWN_MODEL = "unknown_model"

# Most characters of a row's `model` that a message quotes; the input may hold any text there.
_SHOWN = 80


@dataclass(frozen=True)
class _Choice:
    """What a row's own `model` asks for: one of the job's models, or a kind of router and a cutoff."""

    model: str | None = None
    kind: str | None = None
    cutoff: float = float("nan")


class Scorer:
    """Adds `score`, `own_cutoff`, `pinned` and `quality:<model>` columns to the rows of a shard.

    Its constructor takes values that pickle, so that a Ray actor can build it. The constructor loads the job's router.
    `score` loads the router of each other kind when the first row asks for that kind, and keeps it.
    """

    def __init__(
        self,
        router: RouterSpec,
        models: Sequence[ModelSpec],
        *,
        seed: int = 0,
        row_models: Literal["honour", "ignore"] = "honour",
        plan_scores: bool = True,
        threads: int | None = None,
        environment: Environment = NO_ENVIRONMENT,
    ) -> None:
        """Load the router of a job whose `models` are cheapest first.

        `plan_scores=False` is for plans that need no score, such as `pin`: rows that the plan decides then have no
        score, and the constructor does not load the job's router. `threads` is the number of torch's threads.
        `environment` is for routers that call endpoints. `row_models="ignore"` ignores each row's own `model`. Raises
        SpecError if the router cannot be built.
        """
        self._models = tuple(model.name for model in models)
        self._by_name = {name: model.name for model in models for name in (model.name, *model.aliases)}
        self._honoured = row_models == "honour"
        self._seed = seed
        self._threads = threads
        self._environment = environment
        self._spec = router
        self._plan_scores = plan_scores
        # A row may also ask for the job's own router, unless it is `rules`: rules choose a model without a cutoff.
        own_kind = () if router.kind == "rules" else (router.kind,)
        self._row_kinds = tuple(dict.fromkeys((*ROW_KINDS, *own_kind)))
        self._loaded: dict[str, Router] = {}
        self._columns: tuple[str, ...] = ()
        if plan_scores:
            columns = self._router(router.kind).models
            self._columns = columns if len(columns) > 1 else ()

    @classmethod
    def for_job(
        cls, job: JobSpec, *, threads: int | None = None, environment: Environment = NO_ENVIRONMENT
    ) -> "Scorer":
        """Build the scorer of a job."""
        return cls(
            job.router,
            job.models,
            seed=job.seed,
            row_models=job.input.row_models,
            plan_scores=not isinstance(job.plan, PinPlanSpec),
            threads=threads,
            environment=environment,
        )

    def score(self, table: "pa.Table", file: str | None = None) -> "pa.Table":
        """Return the rows of `table`, which `read_shard` made, in the same order, with the columns of a scored part.

        `file` is the name of the rows' file in messages. A row becomes invalid if its own `model` is neither a model of
        the job nor a router with a cutoff. A row that is invalid, or that asks for a model of the job, is passed to no
        router and has no score. Raises SpecError if a router cannot be built, or returns anything but one finite number
        per prompt and column.
        """
        rows = _Rows(table, len(self._columns))
        if self._honoured:
            self._apply_own_choices(rows, file)
        kinds = rows.own_kind
        if self._plan_scores:
            self._score_by_plan(rows, [i for i in rows.open() if kinds[i] is None])
        for kind in sorted({kind for kind in kinds if kind is not None}):
            chosen = [i for i in range(len(kinds)) if kinds[i] == kind]
            rows.score[chosen] = self._gap(kind, self._run(kind, [rows.text[i] for i in chosen]))
        return rows.to_table(self._columns)

    def _apply_own_choices(self, rows: "_Rows", file: str | None) -> None:
        choices = {asked: self._choice(asked) for asked in set(rows.asked) if asked is not None}
        for i in rows.open():
            asked = rows.asked[i]
            if asked is None:
                continue
            choice = choices[asked]
            if choice is None:
                rows.refuse(i, file, self._refusal(asked))
            else:
                rows.pinned[i], rows.own_kind[i], rows.own_cutoff[i] = choice.model, choice.kind, choice.cutoff

    def _choice(self, asked: str) -> _Choice | None:
        if asked in self._by_name:
            return _Choice(model=self._by_name[asked])
        # RouteLLM's spelling is router-<kind>-<cutoff>. No kind has a hyphen. A negative cutoff begins with one, so the
        # text is split at its first two hyphens only.
        parts = asked.split("-", 2)
        if len(parts) < 3 or parts[0] != "router" or parts[1] not in self._row_kinds:
            return None
        try:
            cutoff = float(parts[2])
        except ValueError:
            return None
        is_a_score = abs(cutoff) <= float(np.finfo(np.float32).max)
        return _Choice(kind=parts[1], cutoff=cutoff) if is_a_score else None

    def _refusal(self, asked: str) -> str:
        shown = asked if len(asked) <= _SHOWN else f"{asked[:_SHOWN]}..."
        return (
            f"asks for the model {shown!r}; known: {', '.join(self._by_name)}, and router-<kind>-<cutoff> with the "
            f"kinds {', '.join(self._row_kinds)}; `input.row_models: ignore` routes such rows by the plan"
        )

    def _score_by_plan(self, rows: "_Rows", chosen: list[int]) -> None:
        if not chosen:
            return
        router = self._router(self._spec.kind)
        texts = [rows.text[i] for i in chosen]
        if isinstance(router, RulesRouter):
            for i, decision in zip(chosen, router.decide(texts, rows.columns(chosen)), strict=True):
                rows.pinned[i] = decision.model
                rows.score[i] = decision.score if decision.model is None else np.nan
            return
        predicted = self._run(self._spec.kind, texts)
        rows.score[chosen] = self._gap(self._spec.kind, predicted)
        if self._columns:
            rows.quality[chosen] = predicted

    def _run(self, kind: str, texts: Sequence[str]) -> NDArray[np.float32]:
        return scores_of(self._router(kind), kind, texts)

    def _gap(self, kind: str, predicted: NDArray[np.float32]) -> NDArray[np.float32]:
        return ranking_scores(predicted, self._router(kind).models, self._models)

    def _router(self, kind: str) -> Router:
        if kind not in self._loaded:
            spec = self._spec if kind == self._spec.kind else row_spec(kind)
            assert spec is not None, "only kinds in ROW_KINDS become a choice"
            self._loaded[kind] = build_router(spec, self._models, self._seed, self._threads, self._environment)
        return self._loaded[kind]


class _Rows:
    """The columns of one shard while the scorer fills them in."""

    def __init__(self, table: "pa.Table", qualities: int) -> None:
        count = table.num_rows
        self._table = table
        self._refused: list[int] = []
        self.text: list[str] = table[TEXT].to_pylist()
        self.asked: list[str | None] = table[ASKED].to_pylist()
        self.error_kind: list[str | None] = table[ERROR_KIND].to_pylist()
        self.error_message: list[str | None] = table[ERROR_MESSAGE].to_pylist()
        self.pinned: list[str | None] = [None] * count
        self.own_kind: list[str | None] = [None] * count
        self.own_cutoff = np.full(count, np.nan, dtype=np.float32)
        self.score = np.full(count, np.nan, dtype=np.float32)
        self.quality = np.full((count, qualities), np.nan, dtype=np.float32)

    def open(self) -> list[int]:
        """The positions of the rows that are valid and not pinned to a model."""
        ends = zip(self.error_kind, self.pinned, strict=True)
        return [i for i, (error, pinned) in enumerate(ends) if error is None and pinned is None]

    def columns(self, chosen: Sequence[int]) -> list[Mapping[str, Any]]:
        """The input columns that each chosen row carries."""
        from batch.reading.exact import carried_columns

        carried = self._table[CARRY].take(chosen).to_pylist()
        return [{} if cell is None else carried_columns(cell) for cell in carried]

    def refuse(self, i: int, file: str | None, message: str) -> None:
        """Make row `i` invalid."""
        line = self._table[LINE][i].as_py()
        place = f"line {line}" if file is None else f"{file}:{line}"
        self._refused.append(i)
        self.error_kind[i] = UNKNOWN_MODEL
        self.error_message[i] = f"{place}: {message}"

    def to_table(self, quality_of: Sequence[str]) -> "pa.Table":
        """Return the table with the new columns after its own.

        The text and the body of refused rows become null, as those of all invalid rows are.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._table
        if self._refused:
            refused = np.zeros(table.num_rows, dtype=bool)
            refused[self._refused] = True
            new = {
                TEXT: pc.if_else(refused, None, table[TEXT]),
                BODY: pc.if_else(refused, None, table[BODY]),
                ERROR_KIND: pa.array(self.error_kind, pa.string()),
                ERROR_MESSAGE: pa.array(self.error_message, pa.string()),
            }
            for name, column in new.items():
                table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        pinned = pa.array(self.pinned, pa.string())
        columns = [_null_for_nan(self.score), _null_for_nan(self.own_cutoff), pinned]
        columns += [_null_for_nan(values) for values in self.quality.T]
        fields = (*SCORE_FIELDS, *(quality_field(model) for model in quality_of))
        for field, column in zip(fields, columns, strict=True):
            table = table.append_column(field, column)
        return table


def _null_for_nan(values: NDArray[np.float32]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, pa.float32(), mask=np.isnan(values))
