"""Decides, shard after shard in input order, where each row goes: repeated ids, the plan, equal requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import UNDECIDED, assign
from batch.planning.seen import NO_ROW, FirstOccurrences, with_model
from schemas.plans import Plan


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """The columns of a scored part that planning looks at, as arrays of its length."""

    row: NDArray[np.int64]
    score: NDArray[np.float32]
    """NaN where there is none."""
    own_cutoff: NDArray[np.float32]
    """NaN where there is none."""
    pinned: NDArray[np.int16]
    """Index of the model, or -1."""
    valid: NDArray[np.bool_]
    id_hash: NDArray[np.uint64]
    has_own_id: NDArray[np.bool_]
    asked_id: NDArray[np.bool_]
    """Does the job, or OpenAI's format, ask for the column of the row's id?"""
    content: NDArray[np.uint64]
    """Two halves of the content hash, shape (n, 2)."""
    deterministic: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class RoutedRows:
    """What was decided of one part, as arrays of its length."""

    model: NDArray[np.int16]
    """Index of the model, or -1 where the row is not sent to any."""
    shares_answer_of: NDArray[np.int64]
    """Row whose answer is shared, or -1."""
    repeats_id_of: NDArray[np.int64]
    """Row that has the same id already, or -1."""


class Ids:
    """Finds rows whose id an earlier row has. Parts come in input order, each once."""

    def __init__(self) -> None:
        self._asked = FirstOccurrences()
        self._unasked = FirstOccurrences()

    def look(self, part: PlannedPart) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """For each row the earlier row with its id, or -1: first among ids that were asked for, then where one of the
        two was not. An invalid row's id counts as taken too.
        """
        repeats_id_of = np.full(len(part.row), NO_ROW, np.int64)
        unasked = np.full(len(part.row), NO_ROW, np.int64)
        asked, found = part.has_own_id & part.asked_id, part.has_own_id & ~part.asked_id
        for own, seen, earlier in ((asked, self._asked, repeats_id_of), (found, self._unasked, unasked)):
            keys = part.id_hash[own]
            earlier[own] = seen.first(keys, keys, part.row[own])
        for own, others in ((asked, self._unasked), (found, self._asked)):
            other = others.find(part.id_hash[own])
            rows = part.row[own]
            unasked[own] = np.where((other != NO_ROW) & (other < rows) & (unasked[own] == NO_ROW), other, unasked[own])
        repeats_id_of[~part.valid] = NO_ROW
        return repeats_id_of, unasked


class Requests:
    """Finds rows whose request, to the same model, an earlier row makes. Parts come in input order, each once."""

    def __init__(self, dedup: Literal["auto", "on", "off"]) -> None:
        self._dedup = dedup
        self._seen = FirstOccurrences()

    def route(
        self, part: PlannedPart, repeats_id_of: NDArray[np.int64], plan: Plan, models: Sequence[str]
    ) -> RoutedRows:
        """Apply the plan and share answers."""
        model = assign(part.score, part.row, part.own_cutoff, part.pinned, plan, models)
        model[~part.valid | (repeats_id_of != NO_ROW)] = UNDECIDED
        shares_answer_of = np.full(len(part.row), NO_ROW, np.int64)
        if self._dedup != "off":
            shares = model != UNDECIDED
            if self._dedup == "auto":
                shares &= part.deterministic
            keys = with_model(part.content[shares, 0], model[shares])
            shares_answer_of[shares] = self._seen.first(keys, part.content[shares, 1], part.row[shares])
        return RoutedRows(model, shares_answer_of, repeats_id_of)


def deciding_scores(part: PlannedPart, repeats_id_of: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores of the rows that the plan decides; NaN for invalid and repeated rows and those that chose for
    themselves.
    """
    decides = part.valid & (repeats_id_of == NO_ROW) & (part.pinned < 0) & ~np.isfinite(part.own_cutoff)
    return np.where(decides, part.score, np.float32("nan"))
