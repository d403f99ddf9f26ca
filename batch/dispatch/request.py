"""A row on its way to an endpoint, and what comes back."""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from batch.limits import Allowance
from batch.outcomes import Billed

if TYPE_CHECKING:
    from batch.errors import DispatchError

RowKind = tuple[int, int]
"""Rows alike in what is known before they are sent: `max_tokens` (0: none), and the prompt's length by steps."""


class LimitCost(NamedTuple):
    """What one attempt takes from an endpoint's limits."""

    requests: int
    input: int
    """Tokens of the prompt."""
    output: int
    """Most tokens the answer may have; 0 where nothing bounds it. After the attempt: those it has."""
    expected: int
    """Tokens the answer is expected to have. After the attempt: those it has."""

    def plus(self, other: "LimitCost") -> "LimitCost":
        """Both together."""
        return LimitCost(*(own + more for own, more in zip(self, other, strict=True)))

    def less(self, other: "LimitCost") -> "LimitCost":
        """What is left of this without the other."""
        return LimitCost(*(own - less for own, less in zip(self, other, strict=True)))


NOTHING = LimitCost(0, 0, 0, 0)


_NOTHING_RESERVED = Decimal(0)


@dataclass(slots=True, eq=False)
class Request:
    """One row. Only `attempts` and what follows it change while it is under way."""

    row: int
    shard: int
    url: str
    """Path of the API, as `/v1/chat/completions`."""
    body: bytes
    """JSON object without its `model`, never empty."""
    prompt_tokens: int
    max_tokens: int | None
    model: str
    """Model it is to be sent to; changes when it falls back."""
    planned: str = ""
    """Model the plan chose."""
    attempts: int = 0
    """Requests sent that count against `max_attempts`, those of earlier sittings included."""
    sent: int = 0
    """Requests sent in all."""
    failed_as: tuple[str, int | None] | None = None
    """Kind and HTTP status of the error that its last attempt ended in, of an earlier sitting too."""
    answers_at_failure: int = 0
    """Good answers that its pool had given when the row last failed."""
    order: int = 0
    """Number of its last attempt among all that its pool began."""
    refused: int = 0
    """Bits of the endpoints that refused it; they are not asked again."""
    refusal: "Refusal | None" = None
    """The last refusal, until it is clear whose fault it is."""
    tried_again: int = 0
    """How often it was sent once more after an account's refusal, where others were answered."""
    waits: int = 0
    """How often only endpoints were ready that have refused it."""
    avoid: int = 0
    """Bits of the endpoints that failed it; others are preferred."""
    key: int = 0
    """What `consistent_hash` goes by: rows of one key go to one endpoint while it has room."""
    started: float = 0.0
    """When the attempt that is under way took its endpoint, on the loop's clock."""
    kind: RowKind | None = None
    """Its kind, once somebody asked for it."""
    answers_seen: int = -1
    """Answers its pool had given when the row was last throttled."""
    bound: tuple[str, Decimal | None] | None = None
    """The model, and the most dollars that one attempt there can cost, once somebody asked for it."""
    billed: Billed | None = None
    """What the attempt that ended last may have cost, until the journal is told."""
    reserved: Decimal = _NOTHING_RESERVED
    """Dollars of the budget that the attempt under way holds."""
    rows: "tuple[Request, ...]" = ()
    """Rows that travel together in this request; empty: it is a row itself."""
    cost: LimitCost = field(init=False)
    """Taken from the limits by the next attempt."""

    def take_billed(self) -> Billed | None:
        """What the journal has to be told of the last attempt's cost: once."""
        billed, self.billed = self.billed, None
        return billed

    def moved_to(self, model: str) -> None:
        """It is sent to another model now: what endpoints of the old one said of it does not count there."""
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
    """The provider's whole JSON on one line."""
    prompt_tokens: int | None
    completion_tokens: int | None
    allowances: tuple[Allowance, ...] = ()
    """What the server said about its limits."""
