"""Reports and estimates."""

from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, Field, PlainSerializer

from schemas.base import Spec
from schemas.plans import Plan

# JSON readers add numbers up, not strings. The shortest text of the nearest float has the same digits as the
# decimal up to 15 of them, which is a billion dollars in millionths.
Dollars = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]


class RowCounts(Spec):
    """Where every input row ended. `total` is the sum of the four after it."""

    total: int
    """Rows in the input."""
    ok: int
    """Answered."""
    failed: int
    """Sent, and given up."""
    invalid: int
    """Never sendable."""
    unsent: int
    """Not sent: the budget or a model's whole pool did not allow it."""
    deduplicated: int = 0
    """Of `ok` and `failed`, rows that share another row's answer."""


class EndpointReport(Spec):
    """One endpoint's part."""

    rows: int
    """Rows whose answer, or last error, came from here."""
    attempts: int
    """Requests sent here."""
    throttled: int
    """Of these, refused by a rate limit."""
    errors: int
    """Of these, ended in any other error."""
    cost_usd: Dollars | None
    """Spent here; `None`: unknown."""


class ModelReport(Spec):
    """One model's part."""

    rows: int
    """Rows routed here that are not invalid."""
    share: float
    """Of all such rows."""
    failed: int = 0
    """Of `rows`, those that got no answer."""
    unsent: int = 0
    """Of `rows`, those that were not sent."""
    prompt_tokens: int
    """Summed over the rows, as the provider counted them."""
    completion_tokens: int
    """Summed over the rows, as the provider counted them."""
    cost_usd: Dollars | None
    """`None`: the price is unknown, or a usage is."""
    attempts: int
    """Requests sent."""
    p50_seconds: float | None
    """Median latency of the answers."""
    p95_seconds: float | None
    """95th percentile of the latency of the answers."""
    endpoints: dict[str, EndpointReport]
    """By URL."""


class Counterfactual(Spec):
    """What the same rows would have cost otherwise, at the tokens they really had."""

    all_strongest_usd: Dollars | None
    """Every row by the strongest model."""
    all_cheapest_usd: Dollars | None
    """Every row by the cheapest model."""
    best_single: None = None
    """Always `None`. No release has ever set it; the key stays, so that reports of all versions have the same keys."""
    saved_usd: Dollars | None
    """`all_strongest_usd` less what was spent."""


class PlanReport(Spec):
    """The plan as it was solved."""

    strategy: str
    """Which kind of plan."""
    cutoff: float | None
    """The score from which rows went to the strongest model."""
    expected_share: dict[str, float]
    """Share of the routed rows per model; empty where the plan did not wait for all scores."""
    pinned: int = 0
    """Rows that carried their own model."""

    @classmethod
    def of(cls, plan: Plan, pinned: int) -> "PlanReport":
        """What `plan` says, for a run in which so many rows chose their own model."""
        share = plan.expected_share or {}
        return cls(strategy=plan.strategy, cutoff=plan.cutoff, expected_share=share, pinned=pinned)


class Ambiguous(Spec):
    """A row that was in flight when an earlier run was killed, and may have been billed."""

    id: str
    """The row's id."""
    row: int
    """Its position in the input."""
    model: str
    """Where it was sent."""
    endpoint: str
    """Where it was sent."""
    cost_usd: Dollars | None
    """Estimated cost of the attempt whose outcome is unknown; `None`: unknown."""


class ErrorExample(Spec):
    """One of the rows that ended in one kind of error: the first in the input."""

    id: str
    """The row's id."""
    row: int
    """Its position in the input."""
    status: int | None
    """HTTP status, where there was one."""
    message: str
    """As in the row's result: what happened, and the server's own words."""

    @property
    def line(self) -> str:
        """Id and message; only the message, where it begins with the id, as for rows without an id of their own."""
        return self.message if self.message.startswith(f"{self.id}: ") else f"{self.id}: {self.message}"


class EmbeddingReport(Spec):
    """What a router's embedder was asked for behind an endpoint, over all sittings."""

    model: str
    """The embedding model."""
    inputs: int
    """Prompts that were sent; those whose vector was in the cache were not."""
    in_doubt: int
    """Of these, prompts in flight when a process was killed, which may have been billed; charged at their bound."""
    prompt_tokens: int
    """As the provider counted them, else at most so many."""
    cost_usd: Dollars | None
    """`None`: the price is unknown."""


class Timing(Spec):
    """Where the time went, in seconds."""

    wall_seconds: float
    """Of all sittings of this run together."""
    rows_per_second: float
    """Rows over `wall_seconds`."""
    scoring: float
    """Reading and scoring."""
    dispatch: float
    """From the first request to the last answer."""
    finished_at: AwareDatetime | None = None
    """When the last sitting ended."""


class Report(Spec):
    """What a run did."""

    name: str
    """The job's name."""
    rows: RowCounts
    """Where every row ended."""
    models: dict[str, ModelReport]
    """By name, cheapest first."""
    cost_usd: Dollars
    """What is known to have been spent."""
    cost_is_complete: bool
    """False: some answers have an unknown price or usage, and the true figure is higher."""
    cost_in_doubt_usd: Dollars = Decimal(0)
    """Of `cost_usd`, the most that attempts without an answer (timeouts, broken connections) can have cost."""
    counterfactual: Counterfactual
    """What the same rows would have cost otherwise."""
    plan: PlanReport
    """The plan as it was solved."""
    embeddings: EmbeddingReport | None = None
    """What routing paid an embedding endpoint, which `cost_usd` includes; `None`: it asked none."""
    ambiguous: tuple[Ambiguous, ...] = ()
    """Rows an earlier sitting may have paid for."""
    notes: tuple[str, ...] = ()
    """One line each: endpoints that went out, torn journals, whatever a reader should know."""
    errors: dict[str, int] = Field(default={})
    """Rows that are not ok, by the kind of their error."""
    error_examples: dict[str, ErrorExample] = Field(default={})
    """One row for each kind in `errors`."""
    timing: Timing
    """Where the time went."""
    versions: dict[str, str]
    """Of batchrouter, Python and the libraries that matter."""
    fingerprint: str
    """Hash of everything in the job that affects answers."""
    output: str = ""
    """Where the results are."""

    @property
    def spent_usd(self) -> Decimal | None:
        """What was spent, at least; `None`: nothing is known of it, which is not zero."""
        return self.cost_usd if self.cost_is_complete or self.cost_usd else None


class Range(Spec):
    """A figure that is not known yet."""

    low: float
    """Every answer short."""
    expected: float
    """The figure to plan with."""
    high: float
    """Every answer as long as `max_tokens` allows."""


class ModelEstimate(Spec):
    """One model's part of an estimate."""

    rows: int
    """Rows routed here."""
    share: float
    """Of all routed rows."""
    prompt_tokens: int
    """Counted with the tokenizer at hand."""
    completion_tokens: Range
    """Before anything was sent."""
    cost_usd: Range | None
    """`None`: the price is unknown."""
    eta_seconds: float | None
    """From the pool's limits; `None`: nothing limits it."""


class Estimate(Spec):
    """What a run would do; nothing was sent."""

    name: str
    """The job's name."""
    rows: RowCounts
    """`ok` counts rows that would be sent."""
    sampled: int | None = None
    """Rows looked at, when not all were."""
    models: dict[str, ModelEstimate]
    """By name, cheapest first."""
    cost_usd: Range
    """Over models with a known price."""
    cost_is_complete: bool
    """False: some model's price is unknown."""
    counterfactual: dict[str, Range | None]
    """`all_strongest_usd` and `all_cheapest_usd`."""
    plan: PlanReport
    """The plan as it was solved."""
    eta_seconds: float | None
    """Of the slowest lane; `None`: no limits are configured."""
    notes: tuple[str, ...] = ()
    """One line each."""
    faults: tuple[str, ...] = ()
    """The messages of the first invalid rows, as their results would have them."""
