"""Rows and journals for the dispatcher, in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from batch.dispatch.ports import History
from batch.dispatch.request import Request
from batch.errors import StorageError
from batch.outcomes import Billed, FailedAttempt, RowOutcome
from schemas.results import ErrorInfo, Status
from tests.fakes import request


@dataclass(frozen=True)
class EndedRow:
    """The end of one row."""

    status: Status
    attempts: int
    journal: str
    error: ErrorInfo | None


@dataclass(eq=False)
class MemoryJournal:
    """A journal that keeps its events in memory; with `fail_on`, that outcome raises `StorageError`."""

    model: str
    events: list[tuple[str, int]]
    outcomes: dict[int, EndedRow]
    fail_on: int | None = None
    closed: bool = False
    billed: list[tuple[int, Billed]] = field(default_factory=list)

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        assert not self.closed
        self.events.append(("intent", row))

    def attempt(self, attempt: FailedAttempt) -> None:
        assert not self.closed
        self.events.append((attempt.kind, attempt.row))
        self._bill(attempt.row, attempt.billed)

    def outcome(self, outcome: RowOutcome) -> None:
        assert not self.closed
        if self.fail_on is not None and len(self.outcomes) + 1 >= self.fail_on:
            raise StorageError("the disk is full")
        assert outcome.row not in self.outcomes, "a row has one outcome"
        self.outcomes[outcome.row] = EndedRow(outcome.status, outcome.attempts, self.model, outcome.error)
        self.events.append((outcome.status, outcome.row))
        self._bill(outcome.row, outcome.billed)

    def _bill(self, row: int, billed: Billed | None) -> None:
        if billed is not None:
            self.billed.append((row, billed))

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass
class MemoryWork:
    """The rows of each shard and model, with their journals."""

    rows: dict[tuple[int, str], list[int]]
    histories: dict[int, History] = field(default_factory=dict)
    fail_on: int | None = None
    prompt_tokens: int = 10
    max_tokens: int | None = 10
    events: list[tuple[str, int]] = field(default_factory=list)
    outcomes: dict[int, EndedRow] = field(default_factory=dict)
    journals: list[MemoryJournal] = field(default_factory=list)
    batches_read: int = 0
    billed: list[tuple[int, Billed]] = field(default_factory=list)
    """Rows with what their attempts without an answer may have been billed."""

    def history(self, shard: int) -> History:
        known = self.histories.get(shard, History({}))
        left = {m: sum(row not in known.finished for row in rows) for (s, m), rows in self.rows.items() if s == shard}
        return replace(known, remaining=left)

    def routed(self, shard: int, model: str) -> Iterator[Sequence[Request]]:
        rows = self.rows[shard, model]
        for start in range(0, len(rows), 64):
            self.batches_read += 1
            batch = [
                request(row, model=model, prompt_tokens=self.prompt_tokens, max_tokens=self.max_tokens)
                for row in rows[start : start + 64]
            ]
            for r in batch:
                r.shard = shard
            yield batch

    def journal(self, shard: int, model: str) -> MemoryJournal:
        journal = MemoryJournal(model, self.events, self.outcomes, self.fail_on, billed=self.billed)
        self.journals.append(journal)
        return journal
