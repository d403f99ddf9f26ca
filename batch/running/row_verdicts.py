"""Finds ids that repeat anywhere in the input, in the same way for `check`, `estimate` and `run`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batch.planning.first_occurrences import NO_ROW
from batch.planning.routing import DuplicateIds, PlannedPart
from batch.planning.shared_ids import SharedIds
from batch.reading.columns import ID_FOUND, LINE
from batch.reading.ids import BATCH_COLUMN, column_of
from batch.reading.notes import Fact, Note, Notes
from batch.reading.shard import Shard, index_of_row
from schemas.job import InputSpec

FAULTS_SHOWN: Final = 20
"""How many messages of invalid rows `check` and `estimate` show; the results have all of them."""


class ShardVerdicts(NamedTuple):
    """What was found out about the ids of one shard."""

    repeats_id_of: NDArray[np.int64]
    """For each row the earlier row with the id that was asked for, or NONE: these rows are invalid."""
    shared: SharedIds | None
    """Ids that no setting names and that repeat; such rows are not invalid."""


class RowVerdicts:
    """Finds the rows whose id an earlier row has already. Shards are given in input order, each once.

    It holds 24 bytes in memory for each id.
    """

    def __init__(self, spec: InputSpec, shards: Sequence[Shard], columns: Callable[[int], Any]) -> None:
        """
        Args:
            shards: all of the input.
            columns: returns PLACE_COLUMNS of a shard that was looked at, as a table. It is called only if ids repeat.
        """
        self._column = spec.id_column or BATCH_COLUMN
        self._shards = shards
        self._columns = columns
        self._ids = DuplicateIds()

    def look(self, index: int, part: PlannedPart) -> ShardVerdicts:
        """Look at the ids of the next shard."""
        repeats_id_of, unasked = self._ids.look(part)
        positions = np.flatnonzero(unasked != NO_ROW)
        if not len(positions):
            return ShardVerdicts(repeats_id_of, None)
        first = int(positions[0])
        row, earlier = int(part.row[first]), int(unasked[first])
        found = self._cell(ID_FOUND, row) or self._cell(ID_FOUND, earlier)
        shared = SharedIds(len(positions), column_of(found), self._place(row), self._place(earlier))
        return ShardVerdicts(repeats_id_of, shared)

    def messages(self, index: int, repeats_id_of: NDArray[np.int64]) -> dict[int, str]:
        """The message for each row of a shard that repeats an id, by its position in the shard."""
        first_row = self._shards[index].first_row
        return {
            int(i): f"{self._place(first_row + int(i))}: {self._column} is that of "
            f"{self._place(int(repeats_id_of[i]))} already; "
            "give each row its own, or set input.id_column: none (ids are made up) or input.id_scope: file (ids differ "
            "within each file)"
            for i in np.flatnonzero(repeats_id_of != NO_ROW)
        }

    def forget(self) -> None:
        """Free the ids. To be called once every shard has been looked at."""
        self._ids = DuplicateIds()

    def _place(self, row: int) -> str:
        return f"{self._shards[index_of_row(self._shards, row)].name}:{self._cell(LINE, row)}"

    def _cell(self, column: str, row: int) -> Any:
        index = index_of_row(self._shards, row)
        table = self._columns(index)
        if column not in table.schema.names:
            return None
        return table[column][row - self._shards[index].first_row].as_py()


def summed_notes(notes: Iterable[Iterable[Note]], shared: Iterable[SharedIds | None]) -> tuple[Note, ...]:
    """Sum up the notes of all shards, given in input order, so that each fact is noted once."""
    summed = Notes()
    for some in notes:
        summed.merge(some)
    every = [one for one in shared if one is not None]
    if every:
        first = every[0]
        text = (
            f"ids repeat in the column `{first.column}` ({first.place} has that of {first.earlier}), so the column is "
            "carried as data and rows are called <file>:<line>"
        )
        summed.add(Fact("ids_repeat", text), first.place, sum(one.rows for one in every))
    return summed.all()


def first_faults(messages: Iterable[str | None], duplicate_ids: Mapping[int, str], most: int) -> list[str]:
    """The first `most` messages of the invalid rows of a shard, in row order.

    Args:
        messages: the column `error_message` of its scored part.
        duplicate_ids: messages of rows whose id an earlier row has, by position.
    """
    return list(islice(_faults(messages, duplicate_ids), max(most, 0)))


def _faults(messages: Iterable[str | None], duplicate_ids: Mapping[int, str]) -> Iterator[str]:
    for position, message in enumerate(messages):
        fault = message if message is not None else duplicate_ids.get(position)
        if fault is not None:
            yield fault
