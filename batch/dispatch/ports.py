"""What the dispatcher needs from the run directory: rows to send, and journals to write."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from batch.dispatch.request import Request
from batch.outcomes import FailedAttempt, RowOutcome


class JournalPort(Protocol):
    """The journal of one shard's rows that go to one model. Once `flush` returns, the kernel has all lines.

    Every call may raise StorageError if a line could not be written; from then on each `flush` raises it again.
    Endpoints are indexes into the model's pool.
    """

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """An attempt is about to start."""
        ...

    def attempt(self, attempt: FailedAttempt) -> None:
        """An attempt ended in an error, and its row is no longer in flight."""
        ...

    def outcome(self, outcome: RowOutcome) -> None:
        """A row ended."""
        ...

    def flush(self) -> None:
        """Give all lines to the kernel, so that a kill of this process loses none of them."""
        ...

    def close(self) -> None:
        """Flush, and take no more lines. The written lines will be synced."""
        ...


@dataclass(frozen=True, slots=True)
class History:
    """What earlier sittings have left to do of one shard, and what they know about its rows."""

    remaining: Mapping[str, int]
    """Rows that have no final outcome, by the model they are planned for."""
    finished: Collection[int] = frozenset()
    """Rows that need nothing more."""
    sent: Mapping[int, int] = field(default_factory=dict)
    """Requests already sent for rows that are not finished."""
    failures: Mapping[int, tuple[int, str, int | None]] = field(default_factory=dict)
    """By row: how many attempts count against `max_attempts`, and kind and HTTP status of the last error."""
    ambiguous: Mapping[int, str | None] = field(default_factory=dict)
    """Rows that were in flight when a sitting was killed, and the endpoint they were sent to."""


class Work(Protocol):
    """The rows to send and the journals to keep."""

    def history(self, shard: int) -> History:
        """What earlier sittings have left of this shard."""
        ...

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        """The shard's rows for this model in row order, a bounded batch at a time."""
        ...

    def journal(self, shard: int, model: str) -> JournalPort:
        """Open the journal of the shard's rows for this model, to append to it."""
        ...
