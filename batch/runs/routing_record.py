"""What routing decided of a shard besides models: duplicates. Written last, so that it marks the shard as routed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from batch.errors import DamagedError
from batch.planning.shared_ids import SharedIds
from batch.runs.layout import Layout
from batch.storage.checksums import Checksum
from batch.storage.sealed import read_sealed, write_sealed


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The rows of one shard that are not sent as they stand."""

    routed: Mapping[str, int]
    """Rows to send, by model."""
    same_as: Mapping[int, int] = field(default_factory=dict)
    """Rows that share the answer of an earlier row, which may be in an earlier shard."""
    repeated: Mapping[int, str] = field(default_factory=dict)
    """Rows whose id an earlier row has, and what to say of them."""
    parts: Mapping[str, Checksum] = field(default_factory=dict)
    """What the routed parts must be, by model; empty where an older version wrote them."""
    shared_ids: SharedIds | None = None
    """Ids that nobody asked for and that repeat; such rows are sent."""


def write_verdicts(layout: Layout, shard: int, verdicts: Verdicts) -> None:
    """Store them atomically. Raises StorageError."""
    stored = {
        "routed": dict(verdicts.routed),
        "same_as": _pairs(verdicts.same_as),
        "repeated": _pairs(verdicts.repeated),
        "parts": {model: tuple(part) for model, part in verdicts.parts.items()},
        "shared_ids": None if verdicts.shared_ids is None else list(verdicts.shared_ids),
    }
    path = layout.verdicts(shard)
    write_sealed(path, layout.place(path), orjson.dumps(stored))


def read_verdicts(layout: Layout, shard: int) -> Verdicts | None:
    """`None`: the shard has not been routed, or the file is damaged, and it is routed again. Raises StorageError."""
    path = layout.verdicts(shard)
    try:
        raw = read_sealed(path, layout.place(path))
        if raw is None:
            return None
        stored = orjson.loads(raw)
        parts = {model: Checksum(*part) for model, part in stored.get("parts", {}).items()}
        shared = stored.get("shared_ids")
        return Verdicts(
            stored["routed"],
            dict(stored["same_as"]),
            dict(stored["repeated"]),
            parts,
            None if shared is None else SharedIds(*shared),
        )
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pairs(mapping: Mapping[int, int] | Mapping[int, str]) -> Sequence[Sequence[int | str]]:
    return [[key, value] for key, value in mapping.items()]
