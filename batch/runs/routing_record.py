"""What routing decided about one shard: rows per model, shared answers, duplicate ids. File `verdicts/00012.json`:

    {"crc":"1c291ca3","routed":{"small":90,"large":6},"same_as":[[7,3]],"repeated":[[9,"a.jsonl:10: id ..."]],
     "parts":{"small":[18230,123456],"large":[2044,654321]},"shared_ids":null}

Routing writes it last, after the routed parts, so its existence marks the shard as routed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from batch.errors import DamagedError
from batch.planning.shared_ids import SharedIds
from batch.runs.layout import Layout
from batch.storage.checksums import Checksum
from batch.storage.sealed import read_sealed, write_sealed


@dataclass(frozen=True, slots=True)
class RoutingRecord:
    """The rows of one shard by what happens to them. Rows are numbers in the whole input."""

    routed: Mapping[str, int]
    """Rows to send, by model. A model that no row goes to is left out."""
    shares_answer_of: Mapping[int, int] = field(default_factory=dict)
    """Rows that are not sent, each with the earlier row whose answer it shares; that row may be in an earlier shard."""
    duplicate_ids: Mapping[int, str] = field(default_factory=dict)
    """Rows that are invalid because an earlier row has their id, each with its error message."""
    parts: Mapping[str, Checksum] = field(default_factory=dict)
    """The checksum of each routed part, by model; empty if an older version routed the shard."""
    shared_ids: SharedIds | None = None
    """Ids that the job does not ask for and that repeat; their rows are sent all the same."""


def write_routing_record(layout: Layout, shard: int, record: RoutingRecord) -> None:
    """Store the record of `shard`, atomically. Raises StorageError."""
    # Keys of the stored format, which older versions read too: they stay when fields are renamed.
    stored = {
        "routed": dict(record.routed),
        "same_as": _pairs(record.shares_answer_of),
        "repeated": _pairs(record.duplicate_ids),
        "parts": {model: tuple(part) for model, part in record.parts.items()},
        "shared_ids": None if record.shared_ids is None else list(record.shared_ids),
    }
    path = layout.routing_record(shard)
    write_sealed(path, layout.place(path), orjson.dumps(stored))


def read_routing_record(layout: Layout, shard: int) -> RoutingRecord | None:
    """The record of `shard`; `None` if the shard has not been routed or its record is damaged: it is then routed again.

    Raises StorageError.
    """
    path = layout.routing_record(shard)
    try:
        raw = read_sealed(path, layout.place(path))
        if raw is None:
            return None
        stored = orjson.loads(raw)
        shared = stored.get("shared_ids")
        return RoutingRecord(
            routed=stored["routed"],
            shares_answer_of=dict(stored["same_as"]),
            duplicate_ids=dict(stored["repeated"]),
            parts={model: Checksum(*part) for model, part in stored.get("parts", {}).items()},
            shared_ids=None if shared is None else SharedIds(*shared),
        )
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pairs(mapping: Mapping[int, int] | Mapping[int, str]) -> Sequence[Sequence[int | str]]:
    """The items as a list: JSON objects cannot have numbers as keys."""
    return [[key, value] for key, value in mapping.items()]
