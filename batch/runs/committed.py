"""What is stored of a committed shard: its counts, and what its part of the output must be."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import orjson

from batch.errors import DamagedError
from batch.runs.layout import Layout
from batch.storage.checksums import Checksum, matches
from batch.storage.sealed import read_sealed, write_sealed
from schemas.reports import Ambiguous


@dataclass(frozen=True)
class Committed:
    """Stored for each committed shard, last of all: while it is not there, the shard is committed again."""

    rows: int
    """Results in the part."""
    ledger: bytes
    """The counts, as a JSON object."""
    ambiguous: tuple[Ambiguous, ...] = ()
    """Requests whose end nobody saw, of all sittings; their cost is an upper bound."""
    notes: tuple[str, ...] = ()
    """Damage found in the journals."""
    parts: Mapping[str, Checksum] = field(default_factory=dict)
    """What the files of the part must be, by suffix; empty where an older version wrote them."""
    ids_made_up: bool = False
    """Are ids that nobody asked for among the carried columns, since they repeat?"""


def read_commit(layout: Layout, shard: int) -> Committed | None:
    """What was stored when `shard` was committed; `None`: it was not. Raises StorageError.

    A damaged record is as good as none: it is made again from what it was made of.
    """
    path = layout.commit(shard)
    try:
        raw = read_sealed(path, layout.place(path))
        if raw is None:
            return None
        stored = orjson.loads(raw)
        return Committed(
            rows=stored["rows"],
            ledger=orjson.dumps(stored["ledger"]),
            ambiguous=tuple(Ambiguous.model_validate(a) for a in stored["ambiguous"]),
            notes=tuple(stored["notes"]),
            parts={suffix: Checksum(*part) for suffix, part in stored.get("parts", {}).items()},
            ids_made_up=stored.get("ids_made_up", False),
        )
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write_commit(layout: Layout, shard: int, committed: Committed) -> None:
    """Store it, atomically. Raises StorageError."""
    record = {
        "rows": committed.rows,
        "ambiguous": [a.model_dump(mode="json") for a in committed.ambiguous],
        "notes": committed.notes,
        "ids_made_up": committed.ids_made_up,
        "parts": {suffix: tuple(part) for suffix, part in committed.parts.items()},
        "ledger": orjson.Fragment(committed.ledger),
    }
    path = layout.commit(shard)
    write_sealed(path, layout.place(path), orjson.dumps(record))


def has_parts(layout: Layout, shard: int, committed: Committed, suffixes: Collection[str]) -> bool:
    """Are the files of the part there, and as long as they were? What is in them is looked at when they are used."""
    for suffix in suffixes:
        path, expected = layout.part(shard, suffix), committed.parts.get(suffix)
        if not path.exists() or (expected is not None and path.stat().st_size != expected.size):
            return False
    return True


def check_committed(layout: Layout, shard: int, suffixes: Collection[str]) -> None:
    """Compare the whole part of a committed shard with its record.

    Raises:
        DamagedError: it is not as it was committed, or its record is gone; it can be made again from the journals.
        StorageError: the disk fails.
    """
    committed = read_commit(layout, shard)
    if committed is None:
        record = layout.commit(shard)
        raise DamagedError(f"cannot read {record}: it is gone or damaged", path=str(record))
    for suffix in suffixes:
        path, expected = layout.part(shard, suffix), committed.parts.get(suffix)
        if expected is not None and not matches(path, expected):
            raise DamagedError(f"cannot read {path}: it is not as it was committed", path=str(path))
