"""Outcomes of rows in other shards, for rows that share them."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from types import TracebackType

from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from batch.errors import DamagedError
from batch.runs.committed import read_commit
from batch.runs.journal.outcomes import ModelOutcome, ShardOutcomes
from batch.runs.layout import Layout


class OtherShards:
    """Finds outcomes by row number. Reads the journals of a shard once, when its first row is asked for.

    A context manager that closes the journals it opened.
    """

    def __init__(
        self,
        layout: Layout,
        first_rows: Sequence[int],
        prices: Mapping[str, Price | None],
        fallbacks: Mapping[str, Sequence[str]],
    ) -> None:
        """
        Args:
            first_rows: number of the first row of each shard.
            prices: of all the job's models.
            fallbacks: by model, the models that its rows may have gone to instead.
        """
        self._layout = layout
        self._first_rows = first_rows
        self._prices = prices
        self._fallbacks = fallbacks
        self._open: dict[int, ShardOutcomes] = {}

    def find(self, row: int) -> ModelOutcome | None:
        """The outcome of a row; `None` if it has none yet.

        Raises:
            DamagedError: the row had an outcome, and its journal has lost it. The error names the commit record of the
                row's shard: once that is removed, the shard is committed anew, and the row is sent again.
        """
        shard = bisect_right(self._first_rows, row) - 1
        if shard not in self._open:
            self._open[shard] = ShardOutcomes(self._layout, shard, list(self._prices), self._fallbacks)
        outcomes = self._open[shard]
        found = outcomes.find(row)
        if found is None and (
            any(row in lost for lost in outcomes.answered.lost.values()) or self._was_answered_whole(shard)
        ):
            # The shard is committed, so it is not looked at again unless it is committed anew.
            path = self._layout.commit(shard)
            why = "; ".join(outcomes.answered.notes[-1:]) or f"a journal of shard {shard} has lost an answer"
            raise DamagedError(f"{why}; another shard shares row {row}", path=str(path))
        return found

    def _was_answered_whole(self, shard: int) -> bool:
        """Does the shard's commit record say that every row was sent, so that an answer that is not there was lost?"""
        record = read_commit(self._layout, shard)
        return record is not None and not Ledger.from_json(record.ledger, self._prices).statuses["unsent"]

    def close(self) -> None:
        """Close the journals."""
        for outcomes in self._open.values():
            outcomes.close()

    def __enter__(self) -> "OtherShards":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
