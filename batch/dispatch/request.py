"""A row on its way to an endpoint, and what comes back."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Cost(NamedTuple):
    """What one attempt takes from an endpoint's limits."""

    requests: int
    tokens: int


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
    """Requests sent that count against `max_attempts`."""
    sent: int = 0
    """Requests sent in all."""
    avoid: int | None = None
    """Index of the endpoint that failed it last; another one is preferred."""
    cost: Cost = field(init=False)
    """Reserved before sending: the prompt plus as many tokens as the answer may have."""

    def __post_init__(self) -> None:
        self.planned = self.planned or self.model
        self.cost = Cost(1, self.prompt_tokens + (self.max_tokens or 0))


@dataclass(slots=True, eq=False)
class Completion:
    """A good answer."""

    raw: bytes
    """The provider's whole JSON on one line."""
    prompt_tokens: int | None
    completion_tokens: int | None
