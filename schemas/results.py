"""What a row comes out as."""

from decimal import Decimal
from typing import Any, Literal

from schemas.base import Spec

Status = Literal["ok", "failed", "invalid", "unsent"]


class ErrorInfo(Spec):
    """Why a row is not `ok`."""

    kind: str
    """What went wrong, as `rate_limited`, `timeout`, `bad_request`, `budget`; the list is in `docs/job-file.md`."""

    status: int | None = None
    """HTTP status, where there was one."""

    message: str
    """One line; never a prompt, never a key."""


class ResultRow(Spec):
    """One row of the output; the input's other columns follow these fields."""

    id: str
    """The row's id."""

    row: int
    """Position in the input, from 0."""

    status: Status
    """How it ended."""

    model: str | None
    """Model that answered, or was to answer."""

    endpoint: str | None
    """The endpoint that answered last, by its name: its url, where the job gives it none."""

    score: float | None
    """The router's score; `None` where none was needed."""

    content: str | None
    """The answer's text."""

    response: dict[str, Any] | None
    """The provider's whole JSON."""

    prompt_tokens: int | None
    """As the provider counted them; `None` where it did not say."""

    completion_tokens: int | None
    """As the provider counted them; `None` where it did not say."""

    cost_usd: Decimal | None
    """Of all the row's attempts; those that may have been billed without an answer count at the most they can have
    cost. `None`: the price or the usage is unknown."""

    latency_seconds: float | None
    """Duration of the last attempt."""

    attempts: int
    """Requests sent for this row."""

    error: ErrorInfo | None
    """`None` when `ok`."""
