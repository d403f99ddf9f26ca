"""Decides where each row goes, shard after shard in input order: duplicate ids, the plan, duplicate requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from batch.planning.assign import UNDECIDED, assign
from batch.planning.first_occurrences import NO_ROW, FirstOccurrences, keys_with_model
from schemas.plans import Plan


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """The columns of a scored part that planning needs, as arrays of its length."""

    row: NDArray[np.int64]
    score: NDArray[np.float32]
    """NaN if the row has no score."""
    own_cutoff: NDArray[np.float32]
    """The cutoff that the row asks for; NaN if it asks for none."""
    pinned: NDArray[np.int16]
    """Index of the model that the row is pinned to, or -1."""
    valid: NDArray[np.bool_]
    id_hash: NDArray[np.uint64]
    """Hash of the row's id; 0 if the id was made up."""
    has_own_id: NDArray[np.bool_]
    """Is the row's id from the input, not made up?"""
    id_asked_for: NDArray[np.bool_]
    """Is the id from a column that the job, or OpenAI's batch format, asks for? Others are used if they are unique."""
    content_hash: NDArray[np.uint64]
    """Two halves of the content hash, shape (n, 2)."""
    deterministic: NDArray[np.bool_]
    """Does the request set temperature 0?"""


@dataclass(frozen=True, slots=True)
class RoutedRows:
    """What was decided about the rows of one part, as arrays of its length."""

    model: NDArray[np.int16]
    """Index of the model, or -1 if the row gets no answer: it is invalid, has a duplicate id or no score."""
    shares_answer_of: NDArray[np.int64]
    """The earlier row that makes the same request, whose answer this row shares; -1 if there is none."""
    repeats_id_of: NDArray[np.int64]
    """The earlier row that has the same id; -1 if there is none."""


class DuplicateIds:
    """Finds rows whose id an earlier row has. Parts come in input order, each once."""

    def __init__(self) -> None:
        self._asked = FirstOccurrences()
        self._unasked = FirstOccurrences()

    def look(self, part: PlannedPart) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find earlier rows with the same ids, and remember the ids of this part.

        The id of an invalid row counts as taken too.

        Returns:
            Two arrays with the earlier row that has the row's id, or -1. The first is for pairs of ids that both come
            from a column that is asked for: these rows are invalid. The second is for all other pairs.
        """
        repeats_id_of = np.full(len(part.row), NO_ROW, np.int64)
        unasked = np.full(len(part.row), NO_ROW, np.int64)
        asked, found = part.has_own_id & part.id_asked_for, part.has_own_id & ~part.id_asked_for
        for own, seen, earlier in ((asked, self._asked, repeats_id_of), (found, self._unasked, unasked)):
            keys = part.id_hash[own]
            earlier[own] = seen.first(keys, keys, part.row[own])
        for own, others in ((asked, self._unasked), (found, self._asked)):
            other = others.find(part.id_hash[own])
            rows = part.row[own]
            unasked[own] = np.where((other != NO_ROW) & (other < rows) & (unasked[own] == NO_ROW), other, unasked[own])
        repeats_id_of[~part.valid] = NO_ROW
        return repeats_id_of, unasked


class DuplicateRequests:
    """Finds rows that make the same request to the same model as an earlier row. Parts come once, in input order."""

    def __init__(self, dedup: Literal["auto", "on", "off"]) -> None:
        self._dedup = dedup
        self._seen = FirstOccurrences()

    def route(
        self, part: PlannedPart, repeats_id_of: NDArray[np.int64], plan: Plan, models: Sequence[str]
    ) -> RoutedRows:
        """Apply the plan to a part, and find the rows that share an earlier row's answer.

        Args:
            part: the rows.
            repeats_id_of: the first array that `DuplicateIds.look` returned for the part.
            plan: solved.
            models: of the job, cheapest first.
        """
        model = assign(part.score, part.row, part.own_cutoff, part.pinned, plan, models)
        model[~part.valid | (repeats_id_of != NO_ROW)] = UNDECIDED
        shares_answer_of = np.full(len(part.row), NO_ROW, np.int64)
        if self._dedup != "off":
            shares = model != UNDECIDED
            if self._dedup == "auto":
                shares &= part.deterministic
            keys = keys_with_model(part.content_hash[shares, 0], model[shares])
            shares_answer_of[shares] = self._seen.first(keys, part.content_hash[shares, 1], part.row[shares])
        return RoutedRows(model, shares_answer_of, repeats_id_of)


def deciding_scores(part: PlannedPart, repeats_id_of: NDArray[np.int64]) -> NDArray[np.float32]:
    """The scores of the rows that the plan decides.

    NaN for all others: invalid rows, rows with a duplicate id, and rows with a pin or a cutoff of their own.
    """
    decides = part.valid & (repeats_id_of == NO_ROW) & (part.pinned < 0) & ~np.isfinite(part.own_cutoff)
    return np.where(decides, part.score, np.float32("nan"))
