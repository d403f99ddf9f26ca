"""The commit record of a shard, `committed/00012.json`: its counts, and the checksums of its part of the output."""

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
    """The commit record. It is stored last: a shard without one is committed again."""

    rows: int
    """Results in the part."""
    ledger: bytes
    """The counts, as `Ledger.to_json` writes them."""
    ambiguous: tuple[Ambiguous, ...] = ()
    """Requests of all sittings whose end is in no journal; their cost is an upper bound."""
    notes: tuple[str, ...] = ()
    """Damage found in the journals."""
    parts: Mapping[str, Checksum] = field(default_factory=dict)
    """The checksum of each file of the part, by suffix; empty if an older version wrote them."""
    ids_made_up: bool = False
    """Were ids made up and the rows' own ids carried as data, because ids that the job does not ask for repeat?"""


def read_commit(layout: Layout, shard: int) -> Committed | None:
    """The commit record of `shard`; `None` if it has none or a damaged one: the shard is then committed again.

    Raises StorageError.
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
    """Store the commit record of `shard`, atomically. Raises StorageError."""
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
    """Do the files of the part exist, with the sizes they had? Their content is checked when they are used."""
    for suffix in suffixes:
        path, expected = layout.part(shard, suffix), committed.parts.get(suffix)
        if not path.exists() or (expected is not None and path.stat().st_size != expected.size):
            return False
    return True


def check_committed(layout: Layout, shard: int, suffixes: Collection[str]) -> None:
    """Read the whole part of a committed shard and compare it with its commit record.

    Raises:
        DamagedError: the part differs, or there is no sound record; both can be made again from the journals.
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
