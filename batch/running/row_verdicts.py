"""Finds ids that repeat anywhere in the input, and sums up notes and faults: for `check`, `estimate` and `run`."""

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
"""How many messages of invalid rows `check` and `estimate` show; a run's results have all of them."""


class ShardVerdicts(NamedTuple):
    """The ids of one shard that earlier rows have already."""

    repeats_id_of: NDArray[np.int64]
    """For each row the earlier row with the same id, or NO_ROW. A row that repeats an id is invalid.

    Only ids from a column that the job, or OpenAI's batch format, asks for are compared."""
    shared: SharedIds | None
    """The repeating ids from columns that nothing asks for; rows with such ids stay valid. `None`: there are none."""


class RowVerdicts:
    """Finds the rows whose id an earlier row has already. The caller passes shards in input order, each once.

    It holds 24 bytes of memory for each id.
    """

    def __init__(self, spec: InputSpec, shards: Sequence[Shard], columns: Callable[[int], Any]) -> None:
        """Start without ids.

        Args:
            shards: all of the input.
            columns: returns PLACE_COLUMNS of the shard with the given index, as a table. It is called only if ids
                repeat, and only for shards that were passed to `look`.
        """
        self._column = spec.id_column or BATCH_COLUMN
        self._shards = shards
        self._columns = columns
        self._ids = DuplicateIds()

    def look(self, index: int, part: PlannedPart) -> ShardVerdicts:
        """Compare the ids of the next shard with all earlier ones, and remember them."""
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
        """Write the message for each row of a shard that repeats an id, by the row's position in the shard."""
        first_row = self._shards[index].first_row
        return {
            int(i): f"{self._place(first_row + int(i))}: {self._column} repeats that of "
            f"{self._place(int(repeats_id_of[i]))}; "
            "give each row its own, or set input.id_column: none (ids are made up) or input.id_scope: file (ids must "
            "differ only within each file)"
            for i in np.flatnonzero(repeats_id_of != NO_ROW)
        }

    def forget(self) -> None:
        """Free the memory of the ids. Call it after the last `look`."""
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
    """Sum up the notes and the shared ids of all shards, given in input order, so that each fact is noted once."""
    summed = Notes()
    for some in notes:
        summed.merge(some)
    every = [one for one in shared if one is not None]
    if every:
        first = every[0]
        text = (
            f"ids repeat in the column `{first.column}` ({first.place} has the id of {first.earlier}), so the column "
            "is carried as data and its rows get the ids <file>:<line>"
        )
        summed.add(Fact("ids_repeat", text), first.place, sum(one.rows for one in every))
    return summed.all()


def first_faults(messages: Iterable[str | None], duplicate_ids: Mapping[int, str], most: int) -> list[str]:
    """Return the messages of the first `most` invalid rows of a shard, in row order.

    Args:
        messages: the column `error_message` of the shard's scored part; `None` for a valid row.
        duplicate_ids: messages of rows whose id an earlier row has, by position.
    """
    return list(islice(_faults(messages, duplicate_ids), max(most, 0)))


def _faults(messages: Iterable[str | None], duplicate_ids: Mapping[int, str]) -> Iterator[str]:
    for position, message in enumerate(messages):
        fault = message if message is not None else duplicate_ids.get(position)
        if fault is not None:
            yield fault
