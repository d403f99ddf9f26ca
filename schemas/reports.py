"""The report of a run, and the estimate of one."""

from decimal import Decimal
from typing import Annotated

from pydantic import AwareDatetime, Field, PlainSerializer

from schemas.base import Spec
from schemas.plans import Plan

# Dollars are numbers in JSON, so that readers can add them up. The shortest text of the nearest float has the digits of
# the decimal, up to 15 of them, which is a billion dollars in millionths.
Dollars = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]


class RowCounts(Spec):
    """How the rows of the input ended. `total` is the sum of the next four fields."""

    total: int
    """Rows in the input."""
    ok: int
    """Rows that were answered."""
    failed: int
    """Rows that were sent and got no usable answer."""
    invalid: int
    """Rows that cannot be sent as they are."""
    unsent: int
    """Rows that were not sent, because of the budget or because no endpoint of their model was usable."""
    deduplicated: int = 0
    """Of `ok` and `failed`, rows that share the answer of an equal row."""


class EndpointReport(Spec):
    """One endpoint's part of a run."""

    rows: int
    """Rows whose answer or last error came from this endpoint."""
    attempts: int
    """Requests that were sent to this endpoint."""
    throttled: int
    """Of these, requests that a rate limit refused."""
    errors: int
    """Of these, requests that ended in any other error."""
    cost_usd: Dollars | None
    """What was spent at this endpoint; `None`: unknown."""


class ModelReport(Spec):
    """One model's part of a run."""

    rows: int
    """Rows that were routed to this model and are not invalid."""
    share: float
    """Share of these rows in those of all models, from 0 to 1."""
    failed: int = 0
    """Of `rows`, those that failed."""
    unsent: int = 0
    """Of `rows`, those that were not sent."""
    prompt_tokens: int
    """Summed over the rows, as the provider counted them."""
    completion_tokens: int
    """Summed over the rows, as the provider counted them."""
    cost_usd: Dollars | None
    """What was spent on this model; `None`: its price or a usage is unknown."""
    attempts: int
    """Requests that were sent."""
    p50_seconds: float | None
    """Median latency of the answers."""
    p95_seconds: float | None
    """95th percentile of the latency of the answers."""
    endpoints: dict[str, EndpointReport]
    """Its endpoints by their names, which are their urls if the job gives none."""


class Counterfactual(Spec):
    """What the same rows would have cost with one model, at the tokens that they really had."""

    all_strongest_usd: Dollars | None
    """Cost of every row by the strongest model; `None`: unknown."""
    all_cheapest_usd: Dollars | None
    """Cost of every row by the cheapest model; `None`: unknown."""
    best_single: None = None
    """Always `None`. No release has ever set it; the key stays, so that reports of all versions have the same keys."""
    saved_usd: Dollars | None
    """`all_strongest_usd` less what was spent; `None`: unknown."""


class PlanReport(Spec):
    """The plan as it was solved."""

    strategy: str
    """The plan's strategy."""
    cutoff: float | None
    """The score from which rows went to the strongest model."""
    expected_share: dict[str, float]
    """Each model's share of the routed rows; empty if the plan did not wait for all scores."""
    pinned: int = 0
    """Rows whose model the row itself or a rule chose."""

    @classmethod
    def of(cls, plan: Plan, pinned: int) -> "PlanReport":
        """The report of `plan` for a run in which `pinned` rows chose their own model."""
        share = plan.expected_share or {}
        return cls(strategy=plan.strategy, cutoff=plan.cutoff, expected_share=share, pinned=pinned)


class Ambiguous(Spec):
    """A row that was in flight when an earlier sitting was killed, and may have been billed."""

    id: str
    """The row's id."""
    row: int
    """Its position in the input."""
    model: str
    """The model it was sent to."""
    endpoint: str
    """The endpoint it was sent to."""
    cost_usd: Dollars | None
    """Estimated cost of the attempt whose outcome is unknown; `None`: unknown."""


class ErrorExample(Spec):
    """The first row of the input that ended in a certain kind of error."""

    id: str
    """The row's id."""
    row: int
    """Its position in the input."""
    status: int | None
    """HTTP status; `None` if there was no HTTP answer."""
    message: str
    """The error's message, as in the row's result, with the server's own words."""

    @property
    def line(self) -> str:
        """Id and message. A message that begins with the id, as of rows without an id of their own, stands alone."""
        return self.message if self.message.startswith(f"{self.id}: ") else f"{self.id}: {self.message}"


class EmbeddingReport(Spec):
    """What all sittings sent to the endpoints of the router's embedder."""

    model: str
    """The embedding model."""
    inputs: int
    """Prompts that were sent; a prompt whose vector is in the cache is not sent."""
    in_doubt: int
    """Of these, prompts in flight when a process was killed. They may have been billed, and count at their highest
    cost."""
    prompt_tokens: int
    """Tokens of the prompts as the provider counted them, or if it did not, the most that they can be."""
    cost_usd: Dollars | None
    """What was spent on them; `None`: the price is unknown."""


class Timing(Spec):
    """How long a run took, in seconds."""

    wall_seconds: float
    """Duration of all sittings of this run together."""
    rows_per_second: float
    """Rows of the input divided by `wall_seconds`."""
    scoring: float
    """Duration of reading and scoring."""
    dispatch: float
    """Duration from the first request to the last answer."""
    finished_at: AwareDatetime | None = None
    """When the last sitting ended."""


class Report(Spec):
    """The report of a run."""

    name: str
    """The job's name."""
    rows: RowCounts
    """How the rows ended."""
    models: dict[str, ModelReport]
    """The models by name, cheapest first."""
    cost_usd: Dollars
    """What is known to have been spent."""
    cost_is_complete: bool
    """`false`: the price or usage of some answers is unknown, and the true cost is higher."""
    cost_in_doubt_usd: Dollars = Decimal(0)
    """Of `cost_usd`, the most that attempts without an answer (timeouts, broken connections) can have cost."""
    counterfactual: Counterfactual
    """What the same rows would have cost with one model."""
    plan: PlanReport
    """The plan as it was solved."""
    embeddings: EmbeddingReport | None = None
    """What the router's embedder sent to endpoints, whose cost `cost_usd` includes; `None`: it sent nothing."""
    ambiguous: tuple[Ambiguous, ...] = ()
    """Rows that an earlier sitting may have paid for without receiving the answer."""
    notes: tuple[str, ...] = ()
    """What a reader should know, one line each, such as endpoints that went out or journals that were cut off."""
    errors: dict[str, int] = Field(default={})
    """Number of rows that are not ok, by the kind of their error."""
    error_examples: dict[str, ErrorExample] = Field(default={})
    """One row for each kind in `errors`."""
    timing: Timing
    """How long the run took."""
    versions: dict[str, str]
    """Versions of batchrouter, Python and the libraries that matter."""
    fingerprint: str
    """Hash of everything in the job that affects answers."""
    output: str = ""
    """Path or URI of the results."""

    @property
    def spent_usd(self) -> Decimal | None:
        """The least that was spent; `None`: nothing is known about the cost, which is not zero."""
        return self.cost_usd if self.cost_is_complete or self.cost_usd else None


class Range(Spec):
    """A figure that depends on how long the answers will be."""

    low: float
    """The figure if every answer is short."""
    expected: float
    """The figure to plan with."""
    high: float
    """The figure if every answer is as long as `max_tokens` allows."""


class ModelEstimate(Spec):
    """One model's part of an estimate."""

    rows: int
    """Rows that are routed to this model."""
    share: float
    """Share of these rows in all routed rows, from 0 to 1."""
    prompt_tokens: int
    """Tokens of the prompts, as batchrouter counts them."""
    completion_tokens: Range
    """Tokens of the answers."""
    cost_usd: Range | None
    """Cost of the rows; `None`: the price is unknown."""
    eta_seconds: float | None
    """Shortest time that the limits of the pool allow; `None`: it has no limits."""


class Estimate(Spec):
    """The estimate of a run; nothing was sent."""

    name: str
    """The job's name."""
    rows: RowCounts
    """How the rows would end; `ok` counts the rows that would be sent."""
    sampled: int | None = None
    """Rows that were read, if a sample was taken."""
    models: dict[str, ModelEstimate]
    """The models by name, cheapest first."""
    cost_usd: Range
    """Cost of the models whose price is known."""
    cost_is_complete: bool
    """`false`: the price of some model is unknown."""
    counterfactual: dict[str, Range | None]
    """`all_strongest_usd` and `all_cheapest_usd`: the cost with one model."""
    plan: PlanReport
    """The plan as it was solved."""
    eta_seconds: float | None
    """Time of the slowest model; `None`: no limits are configured."""
    notes: tuple[str, ...] = ()
    """What a reader should know, one line each."""
    faults: tuple[str, ...] = ()
    """Messages of the first invalid rows, as their results would have them."""
