"""How scores become a model per row, and what came of it."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class CutoffPlanSpec(Spec):
    """A row whose score is at least the cutoff goes to the strongest model, any other to the cheapest."""

    strategy: Literal["cutoff"] = "cutoff"
    """Always `cutoff`."""

    cutoff: float
    """Scores from here on go to the strongest model."""


class SharePlanSpec(Spec):
    """Exactly this share of this input, highest scores first, goes to the strongest model."""

    strategy: Literal["share"]
    """Always `share`."""

    strong: Annotated[float, Field(ge=0, le=1)]
    """The share, 0 to 1. Rows with equal scores are taken in input order."""


class PinPlanSpec(Spec):
    """Every row goes to one model."""

    strategy: Literal["pin"]
    """Always `pin`."""

    model: str
    """That model."""


PlanSpec = Annotated[CutoffPlanSpec | SharePlanSpec | PinPlanSpec, Field(discriminator="strategy")]


class Plan(Spec):
    """A solved plan: small, written to `plan.json`, enough to assign any scored row again."""

    strategy: Literal["cutoff", "share", "pin"]
    """Which kind of plan was solved."""

    weakest: str
    """Model for rows below the cutoff."""

    strongest: str
    """Model for rows above the cutoff."""

    cutoff: float | None
    """Rows scoring above it go to the strongest; `None` with `pin`."""

    last_tied_row: int | None = None
    """Of the rows scoring exactly the cutoff, those up to this row number go to the strongest.

    `None`: all of them do."""

    expected_share: dict[str, float] | None = None
    """Share of the routed rows per model, once the whole input has been seen."""
