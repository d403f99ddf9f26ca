"""Snapshots of a run's progress: small, frozen, and sent between processes as they are."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """The progress of one model's lane."""

    model: str
    total: int
    """Rows given to this lane so far, in this sitting."""
    done: int
    """Rows that have ended."""
    ok: int
    """Rows of `done` that were answered."""
    failed: int
    """Rows of `done` that were given up or not sent."""
    in_flight: int
    """Requests in flight."""
    throttled: int
    """Attempts that a rate limit refused."""
    cost: Decimal | None
    """Dollars spent; `None`: the price is unknown."""
    waiting: str | None = None
    """What the next request waits for, as `limits` or `cooldown of <url>: <why>`; `None`: nothing."""
    wait_seconds: float = 0.0
    """Seconds for which no endpoint may be sent a request."""


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The progress of a whole run."""

    stage: str
    """The stage that is going on, as `scoring` or `dispatch`."""
    scored: int
    """Rows read and scored."""
    total: int | None
    """Rows in the input; `None`: not counted yet."""
    lanes: tuple[LaneSnapshot, ...] = ()
    """In the job's order of models."""
    totals_final: bool = False
    """Has every row been routed, so that the lanes' totals grow no more?"""
