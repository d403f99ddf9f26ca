"""Plans: they turn scores into a model for each row. Also the solved plan that a run stores."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Spec


class CutoffPlanSpec(Spec):
    """A row whose score is at least the cutoff goes to the strongest model, any other to the cheapest."""

    strategy: Literal["cutoff"] = "cutoff"
    """Always `cutoff`."""

    cutoff: Annotated[float, Field(allow_inf_nan=False)]
    """Rows with this score or a higher one go to the strongest model."""


class SharePlanSpec(Spec):
    """Exactly this share of the input goes to the strongest model: the rows with the highest scores."""

    strategy: Literal["share"]
    """Always `share`."""

    strong: Annotated[float, Field(ge=0, le=1)]
    """The share, from 0 to 1. Of rows with equal scores, those that come first in the input are taken."""


class PinPlanSpec(Spec):
    """Every row goes to one model."""

    strategy: Literal["pin"]
    """Always `pin`."""

    model: str
    """Name of that model."""


PlanSpec = Annotated[CutoffPlanSpec | SharePlanSpec | PinPlanSpec, Field(discriminator="strategy")]


class Plan(Spec):
    """A solved plan, as `plan.json` stores it: small, and sufficient to assign every scored row again."""

    strategy: Literal["cutoff", "share", "pin"]
    """The strategy of the plan that was solved."""

    weakest: str
    """Model for rows below the cutoff; with `pin`, the one model."""

    strongest: str
    """Model for rows above the cutoff; with `pin`, the one model."""

    cutoff: float | None
    """Rows with a higher score go to the strongest model. `None` with `pin`, and with `share` if no row had a score."""

    last_tied_row: int | None = None
    """Of the rows whose score equals the cutoff, those up to this row number go to the strongest model.

    `None`: all of them do; -1: none of them does."""

    expected_share: dict[str, float] | None = None
    """Each model's share of the rows that the plan decides; `None` if it was solved without seeing them."""
