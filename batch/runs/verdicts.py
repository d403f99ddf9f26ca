"""What routing decided of a shard besides models: duplicates. Written last, so that it marks the shard as routed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from batch.runs.atomic import read_bytes, write_bytes
from batch.runs.layout import Layout


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The rows of one shard that are not sent as they stand."""

    routed: Mapping[str, int]
    """Rows to send, by model."""
    same_as: Mapping[int, int] = field(default_factory=dict)
    """Rows that share the answer of an earlier row, which may be in an earlier shard."""
    repeated: Mapping[int, str] = field(default_factory=dict)
    """Rows whose id an earlier row has, and what to say of them."""


def write_verdicts(layout: Layout, shard: int, verdicts: Verdicts) -> None:
    """Store them atomically. Raises StorageError."""
    stored = {
        "routed": dict(verdicts.routed),
        "same_as": _pairs(verdicts.same_as),
        "repeated": _pairs(verdicts.repeated),
    }
    write_bytes(layout.verdicts(shard), orjson.dumps(stored))


def read_verdicts(layout: Layout, shard: int) -> Verdicts | None:
    """`None`: the shard has not been routed, or the file is damaged, and it is routed again. Raises StorageError."""
    raw = read_bytes(layout.verdicts(shard))
    if raw is None:
        return None
    try:
        stored = orjson.loads(raw)
        return Verdicts(stored["routed"], dict(stored["same_as"]), dict(stored["repeated"]))
    except (ValueError, KeyError, TypeError):
        return None


def _pairs(mapping: Mapping[int, int] | Mapping[int, str]) -> Sequence[Sequence[int | str]]:
    return [[key, value] for key, value in mapping.items()]
