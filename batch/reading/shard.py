"""A shard: the part of an input file that one reading task reads."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from batch.errors import InputError
from batch.reading.folders.partitions import Value
from batch.reading.sources import Source

# Names of spooled files. Older versions stored nothing else that shows that a shard lies in a spooled file.
_SPOOLED = re.compile(r"[0-9a-f]{32}\.jsonl")


@dataclass(frozen=True, slots=True)
class Shard:
    """A range of one input file. It holds plain values only, so it can be pickled and written as JSON."""

    index: int
    """Position in the input, from 0."""

    location: str
    """File to read: absolute local path or URI. For compressed and CSV input, the spooled copy."""

    name: str
    """Name of the user's file in made-up ids and messages."""

    format: Literal["jsonl", "csv", "parquet", "arrow"]
    """How the rows are stored; `csv` is the format of the spooled copies of CSV files and JSON arrays."""

    start: int
    """First byte, or first row of the file for Parquet and Arrow, from 0."""

    stop: int
    """Byte or row after the last."""

    first_row: int
    """Number of the first row in the whole input, from 0."""

    rows: int
    """Rows to read; fewer than the range holds if `limit` ends the input within it."""

    first_line: int
    """Line of the file that `start` is on, or row for Parquet and Arrow, from 1."""

    mtime_ns: int | None = None
    """Modification time of the file when it was cut; `None` for our own copies, and if the store does not say."""

    notes: Sequence[Sequence[str]] = ()
    """Notes on the input's files, each (code, text) as `notes.Fact`; only the first shard has them."""

    size: int | None = None
    """Size of the file in bytes when it was cut; `None` for our own copies, and for shards of older versions."""

    crc: int | None = None
    """CRC-32 of the bytes from `start` to `stop`; `None` for Parquet, and for shards of older versions."""

    spooled: str | None = None
    """Name of the spooled copy; `None` if the shard is read from the user's own file."""

    partition: Sequence[tuple[str, Value]] = ()
    """Columns and values from the names of the file's folders, for rows that have no column of that name."""

    def __post_init__(self) -> None:
        # JSON has no tuples, and a shard read back from a run directory must equal the one that was stored.
        object.__setattr__(self, "partition", tuple((key, value) for key, value in self.partition))
        object.__setattr__(self, "notes", tuple(tuple(note) for note in self.notes))


def index_of_row(shards: Sequence[Shard], row: int) -> int:
    """The position in `shards`, which are in input order, of the shard that holds a row of the input."""
    return bisect_right(shards, row, key=lambda shard: shard.first_row) - 1


def to_stored(shard: Shard) -> dict[str, Any]:
    """The shard as stored in `run.json`: without its location, since run directory and input may be moved."""
    stored = asdict(shard)
    del stored["location"]
    return stored


def from_stored(
    stored: Iterable[Mapping[str, Any]], sources: Sequence[Source], spool: Path, *, are_read: bool = True
) -> list[Shard]:
    """Rebuild stored shards, with the locations of the files that the job reads now.

    Args:
        stored: what `to_stored` returned, or the same with the `location` that older versions stored.
        sources: the job's input files; each has a unique name, by which shards find their file.
        spool: folder of spooled files.
        are_read: `False` if the shards are scored already, so that their files need not exist.

    Raises:
        InputError: a file is no longer among the sources.
    """
    locations = {source.name: source.location for source in sources}
    shards = []
    for one in stored:
        values = dict(one)
        old = values.pop("location", None)
        if old is not None and values.get("mtime_ns") is None and _SPOOLED.fullmatch(PurePath(old).name):
            values["spooled"] = PurePath(old).name
        if are_read and values["name"] not in locations:
            raise InputError(
                f"{values['name']}: no longer among the files of input.path; put it back, "
                "or --fresh starts a new run and keeps this one"
            )
        spooled = values.get("spooled")
        location = locations.get(values["name"], "") if spooled is None else str((spool / spooled).absolute())
        shards.append(Shard(**values, location=location))
    return shards
