"""How scores become a model per row, and what came of it."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class CutoffPlanSpec(Spec):
    """A row whose score is at least the cutoff goes to the strongest model, any other to the cheapest."""

    strategy: Literal["cutoff"] = "cutoff"
    """Always `cutoff`."""

    cutoff: Annotated[float, Field(allow_inf_nan=False)]
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
    """Model for rows below the cutoff; with `pin`, the one model."""

    strongest: str
    """Model for rows above the cutoff; with `pin`, the one model."""

    cutoff: float | None
    """Rows scoring above it go to the strongest. `None` with `pin`, and with `share` where no row had a score."""

    last_tied_row: int | None = None
    """Of the rows scoring exactly the cutoff, those up to this row number go to the strongest.

    `None`: all of them do. -1: none of them does."""

    expected_share: dict[str, float] | None = None
    """Per model, its share of the rows that the plan decides; `None` where it has seen none of them."""
