"""Where a run stands, for whoever shows it: small, frozen, and sent between processes as it is."""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """One model's lane."""

    model: str
    total: int
    """Rows given to this lane so far, in this sitting."""
    done: int
    """Rows that have ended."""
    ok: int
    """Of `done`, answered."""
    failed: int
    """Of `done`, given up or not sent."""
    in_flight: int
    """Requests under way."""
    throttled: int
    """Attempts that a rate limit refused."""
    cost: Decimal | None
    """Dollars spent; `None`: the price is unknown."""
    waiting: str | None = None
    """What the next request waits for, as `limits` or `cooldown of <url>: <why>`; `None`: nothing."""
    wait_seconds: float = 0.0
    """Seconds for which no endpoint may be asked."""


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """A whole run."""

    stage: str
    """What is being done, as `scoring` or `dispatch`."""
    scored: int
    """Rows read and scored."""
    total: int | None
    """Rows in the input; `None`: not counted yet."""
    lanes: tuple[LaneSnapshot, ...] = ()
    """In the job's order of models."""
    totals_final: bool = False
    """Has every row been routed, so that the lanes' totals grow no more?"""
