"""The rows of the results."""

from decimal import Decimal
from typing import Any, Literal

from schemas.base import Spec

Status = Literal["ok", "failed", "invalid", "unsent"]


class ErrorInfo(Spec):
    """Why a row is not `ok`."""

    kind: str
    """What went wrong, such as `rate_limited`, `timeout` or `budget`; `docs/job-file.md` has the list."""

    status: int | None = None
    """HTTP status; `None` if there was no HTTP answer."""

    message: str
    """One line, which never holds a prompt or a key."""


class ResultRow(Spec):
    """One row of the results; the other columns of the input follow these fields."""

    id: str
    """The row's id."""

    row: int
    """Its position in the input, from 0."""

    status: Status
    """How the row ended."""

    model: str | None
    """The model that answered, or that should have answered."""

    endpoint: str | None
    """Name of the endpoint that answered last; its url, if the job gives it no name."""

    score: float | None
    """The router's score; `None` if none was needed."""

    content: str | None
    """The answer's text."""

    response: dict[str, Any] | None
    """The provider's whole answer."""

    prompt_tokens: int | None
    """As the provider counted them; `None` if it did not say."""

    completion_tokens: int | None
    """As the provider counted them; `None` if it did not say."""

    cost_usd: Decimal | None
    """Cost of all attempts for the row. An attempt that may have been billed without an answer counts at the most that
    it can have cost. `None`: the price or the usage is unknown."""

    latency_seconds: float | None
    """Duration of the last attempt, in seconds."""

    attempts: int
    """Requests that were sent for this row."""

    error: ErrorInfo | None
    """Why the row is not ok; `None` if it is."""
