"""A row on its way to an endpoint, and the answer that comes back."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from batch.limits import Allowance
from batch.outcomes import Billed

if TYPE_CHECKING:
    from batch.errors import DispatchError

RowKind = tuple[int, int]
"""What rows of one kind share before they are sent: `max_tokens` (0: none) and the prompt's length, in steps."""


class LimitCost(NamedTuple):
    """What one attempt takes from an endpoint's limits."""

    requests: int
    input: int
    """Tokens of the prompt."""
    output: int
    """The most tokens that the answer may have; 0: nothing bounds it. After the attempt: the tokens it has."""
    expected: int
    """The tokens that the answer is expected to have. After the attempt: the tokens it has."""

    def plus(self, other: "LimitCost") -> "LimitCost":
        """The sum of both."""
        return LimitCost(*(own + more for own, more in zip(self, other, strict=True)))

    def less(self, other: "LimitCost") -> "LimitCost":
        """This less the other."""
        return LimitCost(*(own - less for own, less in zip(self, other, strict=True)))


NOTHING = LimitCost(0, 0, 0, 0)


_NOTHING_RESERVED = Decimal(0)


@dataclass(slots=True, eq=False)
class Request:
    """One row, or several packed ones. Only `model`, `attempts` and the fields below it change once it is sent."""

    row: int
    shard: int
    url: str
    """Path of the API, as `/v1/chat/completions`."""
    body: bytes
    """JSON object without its `model`, never empty."""
    prompt_tokens: int
    max_tokens: int | None
    model: str
    """The model that it is sent to; changes when the row falls back."""
    planned: str = ""
    """The model that the plan chose."""
    attempts: int = 0
    """Requests sent that count against `max_attempts`, those of earlier sittings included."""
    sent: int = 0
    """Requests sent for it in all, over all sittings."""
    failed_as: tuple[str, int | None] | None = None
    """Kind and HTTP status of the error that ended its last attempt, also one of an earlier sitting."""
    answers_at_failure: int = 0
    """How many good answers its pool had given when the row last failed."""
    order: int = 0
    """Number of its last attempt among all attempts of its pool."""
    refused: int = 0
    """Bit mask of the endpoints that refused it; it is not sent to them again."""
    refusal: "Refusal | None" = None
    """The last refusal, until it is clear whether the row or the endpoint is at fault."""
    tried_again: int = 0
    """How often it was sent again after a refusal of the account, because other rows were answered."""
    waits: int = 0
    """How often it was to be sent while only endpoints that have refused it were ready."""
    avoid: int = 0
    """Bit mask of the endpoints where it failed; others are preferred."""
    key: int = 0
    """Rows with equal keys go to one endpoint under `consistent_hash`, while that has room."""
    started: float = 0.0
    """When the attempt in flight took its endpoint, by the loop's clock."""
    kind: RowKind | None = None
    """Its kind; `None` until it is first computed."""
    answers_seen: int = -1
    """How many good answers its pool had given when the row was last throttled; -1: it never was."""
    bound: tuple[str, Decimal | None] | None = None
    """The model, and the most dollars that one attempt there can cost (`None`: unbounded); `None` until first
    computed.
    """
    billed: Billed | None = None
    """What the attempt that ended last may have cost, until it is journaled."""
    reserved: Decimal = _NOTHING_RESERVED
    """Dollars of the budget that are reserved for the attempt in flight."""
    rows: "tuple[Request, ...]" = ()
    """The rows packed into this request; empty: it is a single row."""
    cost: LimitCost = field(init=False)
    """What the next attempt takes from the limits."""

    def take_billed(self) -> Billed | None:
        """What the last attempt may have cost, for its line in the journal; later calls return `None`."""
        billed, self.billed = self.billed, None
        return billed

    def moved_to(self, model: str) -> None:
        """Move the row to another model, and forget what the endpoints of the old one said about it."""
        self.model = model
        self.avoid = self.refused = self.waits = self.answers_at_failure = 0
        self.answers_seen = -1
        self.failed_as = self.refusal = None
        self.tried_again = 0

    def __post_init__(self) -> None:
        self.planned = self.planned or self.model
        output = self.max_tokens or 0
        self.cost = LimitCost(1, self.prompt_tokens, output, output)


class Refusal(NamedTuple):
    """How an endpoint refused a row."""

    error: "DispatchError"
    endpoint: int
    """Index of the endpoint."""
    latency: float
    """Seconds that the attempt took."""


@dataclass(slots=True, eq=False)
class Completion:
    """A good answer."""

    raw: bytes
    """The provider's whole JSON, on one line."""
    prompt_tokens: int | None
    completion_tokens: int | None
    allowances: tuple[Allowance, ...] = ()
    """What the server stated about its limits."""
