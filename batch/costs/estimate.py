"""Estimates what a run would cost, and how long its rate limits would make it take, before anything is sent."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch.costs.prices import Price
from schemas.endpoints import EndpointSpec, ModelSpec
from schemas.plans import Plan
from schemas.reports import Estimate, ModelEstimate, PlanReport, Range, RowCounts

# The limit that is assumed for rows without max_tokens. Providers allow far more, which few answers to one prompt use.
ASSUMED_MAX_TOKENS = 1024

# gpt-4-1106-preview and Mixtral-8x7B-Instruct averaged 125 and 103 tokens over 639 questions of GSM8K (nine in
# ten between 42 and 242). Other work differs, which is what the range is for.
EXPECTED_ANSWER_TOKENS = 120


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """What a plan sends to one model."""

    rows: int
    prompt_tokens: int
    """Sum over all rows."""
    max_tokens: int
    """Sum of `max_tokens` over the rows that set it."""
    unlimited: int = 0
    """How many rows set no `max_tokens`."""
    embeddings: int = 0
    """How many rows ask for embeddings, which have no answer tokens."""

    def scaled(self, factor: float) -> "ModelLoad":
        """The load of a whole input that is `factor` times as large as the sample with this load."""
        counts = (self.rows, self.prompt_tokens, self.max_tokens, self.unlimited, self.embeddings)
        return ModelLoad(*(round(count * factor) for count in counts))


def completion_range(load: ModelLoad) -> Range:
    """Completion tokens of a load.

    Low is one token per row. Expected is 120 per row, or the sum of the rows' own limits if that is less. High is that
    sum. A row without a limit is assumed to stop at 1,024.
    """
    limited = load.rows - load.unlimited - load.embeddings
    return Range(
        low=limited + load.unlimited,
        expected=min(EXPECTED_ANSWER_TOKENS * limited, load.max_tokens) + EXPECTED_ANSWER_TOKENS * load.unlimited,
        high=load.max_tokens + ASSUMED_MAX_TOKENS * load.unlimited,
    )


def cost_range(price: Price, load: ModelLoad) -> Range:
    """Dollars for a load: at the low, the expected and the high number of completion tokens."""
    tokens = completion_range(load)
    low, expected, high = (
        float(price.total(load.prompt_tokens, round(count))) for count in (tokens.low, tokens.expected, tokens.high)
    )
    return Range(low=low, expected=expected, high=high)


def eta_seconds(
    endpoints: Sequence[EndpointSpec], rows: int, prompt_tokens: float, completion_tokens: float
) -> float | None:
    """Seconds that a model's pool needs at least, given its endpoints' limits per minute.

    `None` if an endpoint has no such limit. How many answers per minute `max_in_flight` allows is left out, since that
    depends on a latency that is unknown before the first answer.

    Args:
        endpoints: of the pool.
        rows: how many rows the pool gets.
        prompt_tokens: sum over all rows.
        completion_tokens: sum over all rows.
    """
    if not rows:
        return 0.0
    per_minute = 0.0
    for endpoint in endpoints:
        limits = endpoint.limits
        shared = (
            (limits.rpm, rows),
            (limits.tpm, prompt_tokens + completion_tokens),
            (limits.input_tpm, prompt_tokens),
            (limits.output_tpm, completion_tokens),
        )
        paces = [limit * rows / max(used, 1) for limit, used in shared if limit is not None]
        if not paces:
            return None
        per_minute += min(paces)
    return 60 * rows / per_minute


def estimate(
    *,
    name: str,
    models: Sequence[ModelSpec],
    prices: Mapping[str, Price | None],
    loads: Mapping[str, ModelLoad],
    rows: RowCounts,
    plan: Plan,
    pinned: int = 0,
    sampled: int | None = None,
    notes: Sequence[str] = (),
    faults: Sequence[str] = (),
) -> Estimate:
    """Put the estimate together.

    Args:
        name: of the job.
        models: of the job, cheapest first.
        prices: by model; `None`: unknown.
        loads: by model; models that get no rows may be left out.
        rows: how many rows there are, by what happens to them.
        plan: as it was solved.
        pinned: how many rows are pinned to a model.
        sampled: how many rows were looked at; `None`: all.
        notes: what the reader should know of the input. Notes on what the estimate assumes are added behind them.
        faults: messages of invalid rows.
    """
    all_loads = {model.name: loads.get(model.name, ModelLoad(0, 0, 0)) for model in models}
    routed = sum(load.rows for load in all_loads.values())
    parts: dict[str, ModelEstimate] = {}
    for model in models:
        load, price = all_loads[model.name], prices[model.name]
        completion = completion_range(load)
        parts[model.name] = ModelEstimate(
            rows=load.rows,
            share=load.rows / routed if routed else 0.0,
            prompt_tokens=load.prompt_tokens,
            completion_tokens=completion,
            cost_usd=cost_range(price, load) if price else None,
            eta_seconds=eta_seconds(model.endpoints, load.rows, load.prompt_tokens, completion.expected),
        )
    together = _together(all_loads.values())
    etas = [part.eta_seconds for part in parts.values() if part.eta_seconds is not None]
    return Estimate(
        name=name,
        rows=rows,
        sampled=sampled,
        models=parts,
        cost_usd=_sum([part.cost_usd for part in parts.values() if part.cost_usd]),
        cost_is_complete=all(part.cost_usd or not part.rows for part in parts.values()),
        counterfactual={
            "all_strongest_usd": _all_by(prices[models[-1].name], together),
            "all_cheapest_usd": _all_by(prices[models[0].name], together),
        },
        plan=PlanReport.of(plan, pinned),
        eta_seconds=max(etas, default=None),
        notes=(*notes, *_notes(together, parts)),
        faults=tuple(faults),
    )


def _together(loads: Iterable[ModelLoad]) -> ModelLoad:
    columns = zip(*((x.rows, x.prompt_tokens, x.max_tokens, x.unlimited, x.embeddings) for x in loads), strict=True)
    return ModelLoad(*(sum(column) for column in columns))


def _all_by(price: Price | None, load: ModelLoad) -> Range | None:
    return cost_range(price, load) if price else None


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(
        low=sum(r.low for r in ranges),
        expected=sum(r.expected for r in ranges),
        high=sum(r.high for r in ranges),
    )


def _notes(load: ModelLoad, parts: Mapping[str, ModelEstimate]) -> list[str]:
    notes = []
    if load.rows > load.embeddings:
        notes.append(
            f"expected: {EXPECTED_ANSWER_TOKENS} tokens an answer, the average of two models on grade-school maths; "
            "low: one token; high: max_tokens"
        )
    if load.unlimited:
        notes.append(f"{load.unlimited:,} rows give no max_tokens; high assumes {ASSUMED_MAX_TOKENS:,} for each")
    notes += [
        f"the price of {name} is not known; its {part.rows:,} rows are not in the cost"
        for name, part in parts.items()
        if part.cost_usd is None and part.rows
    ]
    return notes
