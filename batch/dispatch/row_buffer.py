"""Fresh rows of one lane, in memory: in order, or by kind."""

from collections import deque
from collections.abc import Callable, Iterable

from batch.dispatch.request import Request, RowKind


class RowBuffer:
    """A queue that can also give the first row of a kind, where it is told how to find out kinds."""

    def __init__(self, kind: Callable[[Request], RowKind] | None = None) -> None:
        self.counts: dict[RowKind, int] = {}
        """Rows here, by kind; empty where kinds are of no interest."""
        self._kind = kind
        self._order: deque[Request] = deque()
        self._by_kind: dict[RowKind, deque[Request]] = {}
        # Rows leave by either queue and are found out in the other one later.
        self._here: dict[int, RowKind] = {}

    def __len__(self) -> int:
        return len(self._order) if self._kind is None else len(self._here)

    def extend(self, rows: Iterable[Request]) -> None:
        """More rows, behind."""
        if self._kind is None:
            self._order.extend(rows)
            return
        for row in rows:
            self._order.append(row)
            self._by_kind.setdefault(self._enter(row), deque()).append(row)

    def put_first(self, row: Request) -> None:
        """A row that was taken comes back, and is the next."""
        self._order.appendleft(row)
        if self._kind is not None:
            self._by_kind.setdefault(self._enter(row), deque()).appendleft(row)

    def pop(self) -> Request | None:
        """The next row."""
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
        """Put those with the most work first."""
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
