"""How rows and attempts end: what the dispatcher tells its journals."""

from typing import NamedTuple

from schemas.results import ErrorInfo, Status


class Billed(NamedTuple):
    """Tokens that an attempt without an answer was, or may have been, billed for."""

    prompt_tokens: int | None
    """`None`, as the next: nothing bounds it."""
    completion_tokens: int | None
    exact: bool
    """Did the server state these counts? Otherwise they are the most that the attempt can have been billed for."""


class FailedAttempt(NamedTuple):
    """An attempt that ended without an answer; its row will be sent again."""

    row: int
    attempt: int
    """Number of the attempt among all that were made at the row."""
    endpoint: int
    """Index of the endpoint among its model's."""
    kind: str
    """Kind of the error (`DispatchError.kind`)."""
    status: int | None
    """HTTP status of the error; `None`: the server sent none."""
    latency: float
    """Seconds from the start of the attempt to its end."""
    counts: bool = False
    """Is it one of the row's `max_attempts`?"""
    billed: Billed | None = None
    """What the attempt may have cost; `None`: nothing."""


class RowOutcome(NamedTuple):
    """How a row ended. `ok` and `failed` are final; `unsent` says why this sitting did not send the row."""

    row: int
    status: Status
    endpoint: int | None
    """Index, among its model's, of the endpoint that the last attempt went to."""
    attempts: int
    """Requests sent for the row so far, over all sittings."""
    latency: float | None
    """Seconds of the last attempt."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    response: bytes | None = None
    """The provider's JSON, as it came."""
    error: ErrorInfo | None = None
    """Required unless the row is `ok`."""
    billed: Billed | None = None
    """What the last attempt may have cost, where it brought no answer."""
