"""What servers say about their limits, and what the dispatcher has learned of them."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Measure = Literal["requests", "tokens", "input", "output"]
"""What a limit counts."""


class Allowance(NamedTuple):
    """What a server says about one of its limits, in an answer's headers."""

    measure: Measure
    limit: float | None
    """Per minute."""
    remaining: float | None
    """Left when the answer was made."""
    reset_seconds: float | None
    """Until the limit is whole again."""


@dataclass(frozen=True, slots=True)
class LearnedLimits:
    """What an endpoint was found to bear, where nothing is configured."""

    in_flight: int | None = None
    """Requests under way at once; `None`: configured, or not known yet."""
    rpm: float | None = None
    """Requests per minute; `None`: nothing was refused."""
