"""Limits: those that servers state, and those that the dispatcher has learned."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Measure = Literal["requests", "tokens", "input", "output"]
"""What a limit counts."""


class Allowance(NamedTuple):
    """What a server states about one of its limits, in an answer's headers."""

    measure: Measure
    limit: float | None
    """Per minute."""
    remaining: float | None
    """What was left when the server made the answer."""
    reset_seconds: float | None
    """Seconds until the whole limit is available again."""


@dataclass(frozen=True, slots=True)
class LearnedLimits:
    """The limits that an endpoint turned out to have, where none is configured."""

    in_flight: int | None = None
    """Requests in flight at once; `None`: configured, or not known yet."""
    rpm: float | None = None
    """Requests per minute; `None`: nothing was refused."""
