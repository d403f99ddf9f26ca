"""The record of answered rows, `answered/00012.json`: which rows the journals of a shard held an end for.

    {"crc":"1c291ca3","journals":{"small":{"size":18230,"rows":[0,7,9,20]}},"lost":{"small":[7,8]},"notes":["..."]}

`rows` are ranges: from 0 up to but not including 7, and so on. Each line of a journal has a checksum, but a journal
cannot show that its last lines are gone. This record can: it has the rows of the last time the journals were read. It
is written when the shard is committed, when a sitting ends with the shard half done, and when the next sitting takes
the shard up.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from batch.errors import DamagedError
from batch.runs.journal.replay import LOST, LostRequest, Replay, replay
from batch.runs.layout import Layout
from batch.storage.atomic import storage_error
from batch.storage.sealed import read_sealed, write_sealed

_log = logging.getLogger("batchrouter.runs")

# A message names at most this many ranges of rows; the report's `ambiguous` has each row.
_RANGES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class HeldRows:
    """What one journal held when it was last read."""

    size: int
    """Its size in bytes."""
    rows: frozenset[int]
    """Rows that were `ok` or `failed`."""


@dataclass(frozen=True, slots=True)
class AnsweredRecord:
    """The record of one shard."""

    held: Mapping[str, HeldRows] = field(default_factory=dict)
    """By model."""
    lost: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """By model, rows whose end its journal held once and has lost; they may have been sent again since."""
    notes: tuple[str, ...] = ()
    """One line for each such loss."""


def read_answered(layout: Layout, shard: int) -> AnsweredRecord:
    """The record of a shard; an empty one if it is missing or damaged. Raises StorageError."""
    path = layout.answered(shard)
    try:
        raw = read_sealed(path, layout.place(path))
        stored = {"journals": {}, "lost": {}, "notes": []} if raw is None else orjson.loads(raw)
        return AnsweredRecord(
            {model: HeldRows(one["size"], _from_ranges(one["rows"])) for model, one in stored["journals"].items()},
            {model: _from_ranges(rows) for model, rows in stored["lost"].items()},
            tuple(stored["notes"]),
        )
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        # A damaged record proves nothing against the journals.
        return AnsweredRecord()


def replay_all(layout: Layout, shard: int, models: Iterable[str]) -> tuple[dict[str, Replay], AnsweredRecord]:
    """Read the journals of a shard and compare them with its record.

    A row whose end is gone from its journal is treated as if it had been in flight when a run was killed: it is
    ambiguous, and its request is lost.

    Returns:
        The journals by model, and the record as it should now be stored.

    Raises:
        StorageError: a file cannot be read.
    """
    before = read_answered(layout, shard)
    replays = {model: replay(layout.journal(shard, model)) for model in models}
    held = dict(before.held)
    lost = dict(before.lost)
    notes = list(before.notes)
    for model, journal in replays.items():
        finished = frozenset(journal.ok | journal.failed)
        missing = before.held[model].rows - finished if model in before.held else frozenset()
        if missing:
            lost[model] = lost.get(model, frozenset()) | missing
            place = layout.place(journal.path)
            note = (
                f"{place} held answers that are gone from it: {len(missing):,} rows ({_shown(missing)}); "
                "they are treated as if they had been in flight when a run was killed"
            )
            if note not in notes:
                _log.warning("%s", note)
            notes.append(note)
        if finished or model in held:
            held[model] = HeldRows(_size(journal.path), finished)
        _count_lost(journal, lost.get(model, frozenset()))
    return replays, AnsweredRecord(held, lost, tuple(dict.fromkeys(notes)))


def write_answered(layout: Layout, shard: int, answered: AnsweredRecord) -> None:
    """Store the record, unless the stored one is the same. Raises StorageError."""
    if answered == read_answered(layout, shard):
        return
    path = layout.answered(shard)
    record = {
        "journals": {m: {"size": held.size, "rows": _ranges(held.rows)} for m, held in answered.held.items()},
        "lost": {model: _ranges(rows) for model, rows in answered.lost.items()},
        "notes": answered.notes,
    }
    write_sealed(path, layout.place(path), orjson.dumps(record))


@dataclass(frozen=True, slots=True)
class UnfinishedShard:
    """A shard that is half done when a sitting ends."""

    layout: Layout
    index: int
    models: tuple[str, ...]


def record_answered(shard: UnfinishedShard) -> None:
    """Store which rows the journals of the shard hold an end for, unless they are as long as when that was last stored.

    No process may be writing to the journals meanwhile.

    Raises:
        StorageError: a file cannot be read or written.
    """
    layout, index = shard.layout, shard.index
    held = read_answered(layout, index).held
    if any(_size(layout.journal(index, m)) != (held[m].size if m in held else 0) for m in shard.models):
        write_answered(layout, index, replay_all(layout, index, shard.models)[1])


def _count_lost(journal: Replay, lost: frozenset[int]) -> None:
    """Change the replay to what it would be if the requests of these rows had been in flight when a run was killed."""
    known = {sent.row for sent in journal.lost}
    for row in sorted(lost):
        journal.attempts[row] = max(journal.attempts.get(row, 0), 1)
        sent = LostRequest(row, journal.attempts[row], None)
        if row not in known:
            journal.lost.append(sent)
            journal.ended[None, LOST] += 1
        if not journal.finished(row):
            journal.ambiguous.setdefault(row, sent)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise storage_error(path, error, "read") from error


def _ranges(rows: Iterable[int]) -> list[int]:
    """For each range of consecutive rows, its first row and the row after its last."""
    ranges: list[int] = []
    for row in sorted(rows):
        if ranges and ranges[-1] == row:
            ranges[-1] = row + 1
        else:
            ranges += [row, row + 1]
    return ranges


def _from_ranges(ranges: list[int]) -> frozenset[int]:
    return frozenset(row for start, stop in zip(ranges[::2], ranges[1::2], strict=True) for row in range(start, stop))


def _shown(rows: Iterable[int]) -> str:
    ranges = _ranges(rows)
    pairs = list(zip(ranges[::2], ranges[1::2], strict=True))
    shown = ", ".join(
        str(start) if stop == start + 1 else f"{start}-{stop - 1}" for start, stop in pairs[:_RANGES_SHOWN]
    )
    return shown + ("" if len(pairs) <= _RANGES_SHOWN else ", ...")
