"""Fresh rows of one lane, in memory, in order and by kind."""

from collections import deque
from collections.abc import Callable, Iterable

from batch.dispatch.request import Request, RowKind


class RowBuffer:
    """A queue that also finds the first row of a kind, if it is given a function that tells a row's kind."""

    def __init__(self, kind: Callable[[Request], RowKind] | None = None) -> None:
        self.counts: dict[RowKind, int] = {}
        """How many rows are here, by kind; stays empty without a `kind` function."""
        self._kind = kind
        self._order: deque[Request] = deque()
        self._by_kind: dict[RowKind, deque[Request]] = {}
        # A row that leaves one of the two queues stays in the other one until it is skipped there: it is no longer
        # here.
        self._here: dict[int, RowKind] = {}

    def __len__(self) -> int:
        return len(self._order) if self._kind is None else len(self._here)

    def extend(self, rows: Iterable[Request]) -> None:
        """Add rows at the end."""
        if self._kind is None:
            self._order.extend(rows)
            return
        for row in rows:
            self._order.append(row)
            self._by_kind.setdefault(self._enter(row), deque()).append(row)

    def put_first(self, row: Request) -> None:
        """Put a row that was taken back at the head."""
        self._order.appendleft(row)
        if self._kind is not None:
            self._by_kind.setdefault(self._enter(row), deque()).appendleft(row)

    def pop(self) -> Request | None:
        """Take the row at the head; `None` if there is none."""
        while self._order:
            row = self._order.popleft()
            if self._kind is None or self._leave(row):
                return row
        return None

    def find(self, share: float) -> Request | None:
        """The row that is this share of the queue away from its head, or the next one behind it; it stays here."""
        steps = int(share * len(self._order))
        self._order.rotate(-steps)
        found = next((row for row in self._order if self._kind is None or row.row in self._here), None)
        self._order.rotate(steps)
        return found

    def first_of(self, kind: RowKind) -> Request | None:
        """The first row of this kind; it stays here."""
        rows = self._by_kind.get(kind)
        while rows:
            if rows[0].row in self._here:
                return rows[0]
            rows.popleft()
        return None

    def remove(self, row: Request) -> None:
        """Take out a row that `find` or `first_of` has found."""
        if self._kind is None:
            self._order.remove(row)
        else:
            self._leave(row)

    def sort(self, work: Callable[[Request], float]) -> None:
        """Sort by work, the most first."""
        here = [row for row in self._order if self._kind is None or row.row in self._here]
        self._order = deque(sorted(here, key=work, reverse=True))

    def _enter(self, row: Request) -> RowKind:
        assert self._kind is not None
        kind = self._here[row.row] = self._kind(row)
        self.counts[kind] = self.counts.get(kind, 0) + 1
        return kind

    def _leave(self, row: Request) -> bool:
        kind = self._here.pop(row.row, None)
        if kind is None:
            return False
        self.counts[kind] -= 1
        return True
