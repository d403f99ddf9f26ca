"""What the results need of each row of a scored part."""

from collections.abc import Iterable, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from batch.reading.columns import ID_FOUND, LINE
from batch.reading.exact import carried_json, splice_carried
from batch.reading.ids import column_of, column_value, made_up_id
from batch.runs.parts import iter_part
from batch.runs.schemas import COMMITTED_COLUMNS, PLACE_COLUMNS, SCORE


class ScoredRow(NamedTuple):
    """One row of a scored part, in the order of `COMMITTED_COLUMNS`; columns that the part lacks are `None`."""

    row: int
    id: str
    score: float | None
    carry: bytes | None
    error_kind: str | None
    error_message: str | None
    pinned: str | None
    prompt_tokens: int | None
    max_tokens: int | None


def scored_rows(scored: Path, *, make_up_ids: str | None = None) -> Iterator[ScoredRow]:
    """The rows of a scored part, in order.

    Args:
        scored: the part, which must have been checked.
        make_up_ids: the name of the input file if ids that the job does not ask for repeat in it. Each row with such an
            id is then called `<file>:<line>`, and its own id becomes one of its carried columns.

    Raises:
        StorageError: the part cannot be read.
    """
    rows = _stored_rows(scored)
    return rows if make_up_ids is None else _with_made_up_ids(rows, scored, make_up_ids)


def _stored_rows(scored: Path) -> Iterator[ScoredRow]:
    for batch in iter_part(scored, columns=COMMITTED_COLUMNS):
        columns: list[list[Any]] = []
        for name in COMMITTED_COLUMNS:
            if name not in batch.schema.names:
                columns.append([None] * batch.num_rows)
            elif name == SCORE:
                # By way of text: the shortest decimal that is this float32, as 0.116 and not 0.11599999666213989.
                columns.append([_finite(text) for text in batch.column(name).cast("string").to_pylist()])
            else:
                columns.append(batch.column(name).to_pylist())
        yield from map(ScoredRow._make, zip(*columns, strict=True))


def _with_made_up_ids(rows: Iterable[ScoredRow], scored: Path, file: str) -> Iterator[ScoredRow]:
    places = (
        place
        for batch in iter_part(scored, columns=PLACE_COLUMNS)
        for place in zip(batch.column(LINE).to_pylist(), batch.column(ID_FOUND).to_pylist(), strict=True)
    )
    for given, (line, found) in zip(rows, places, strict=True):
        if found is None:
            yield given
            continue
        own = carried_json({column_of(found): column_value(found, given.id, file)})
        yield given._replace(
            id=made_up_id(file, line), carry=own if given.carry is None else splice_carried(own, given.carry)
        )


def _finite(text: str | None) -> float | None:
    value = float(text) if text is not None else None
    return value if value is not None and isfinite(value) else None
