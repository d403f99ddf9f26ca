"""A shard: what one reading task is given."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from batch.errors import InputError
from batch.reading.folders.partitions import Value
from batch.reading.sources import Source

# How spooled files are named; shards of older versions tell in no other way that they are of one.
_SPOOLED = re.compile(r"[0-9a-f]{32}\.jsonl")


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of one input file. Plain values only, so it can be pickled and written as JSON."""

    index: int
    """Position in the input, from 0."""

    location: str
    """File to read: absolute local path, or URI. For compressed and CSV input the spooled file."""

    name: str
    """What made-up ids and messages call the file that the user gave."""

    format: Literal["jsonl", "csv", "parquet", "arrow"]
    """How the rows are written; `csv` is what CSV files and JSON arrays are spooled as."""

    start: int
    """First byte, or first row of the file for Parquet and Arrow, from 0."""

    stop: int
    """Byte or row after the last."""

    first_row: int
    """Number of the first row in the whole input, from 0."""

    rows: int
    """Rows to read; less than the stretch holds where `limit` ends the input."""

    first_line: int
    """Line of the file that `start` is on, or row for Parquet and Arrow, from 1."""

    mtime_ns: int | None = None
    """The file's last change when it was cut; `None`: it is our own copy, or its store does not say."""

    notes: Sequence[Sequence[str]] = ()
    """What a reader should know of the input's files, each (code, text) as `notes.Fact`; the first shard has it."""

    size: int | None = None
    """The file's bytes when it was cut; `None`: it is our own copy, or an older version cut it."""

    crc: int | None = None
    """CRC-32 of the bytes from `start` to `stop`; `None` for Parquet, and where an older version cut it."""

    spooled: str | None = None
    """File name in the spool; `None`: the shard is read from the user's own file."""

    partition: Sequence[tuple[str, Value]] = ()
    """Columns that the names of the file's folders give to each row that has none of that name itself."""

    def __post_init__(self) -> None:
        # JSON has lists only, and a shard that comes back from a run directory must equal the one that went in.
        object.__setattr__(self, "partition", tuple((key, value) for key, value in self.partition))
        object.__setattr__(self, "notes", tuple(tuple(note) for note in self.notes))


def to_stored(shard: Shard) -> dict[str, Any]:
    """The shard as `run.json` has it: without its location, since the run directory and the input may move."""
    stored = asdict(shard)
    del stored["location"]
    return stored


def from_stored(
    stored: Iterable[Mapping[str, Any]], sources: Sequence[Source], spool: Path, *, are_read: bool = True
) -> list[Shard]:
    """Stored shards, located in the files that the job reads now. No path of an earlier sitting is used.

    Args:
        stored: what `to_stored` made, or the same with the `location` that older versions stored.
        sources: the job's input files; a file is known by its name, of which every source has its own.
        spool: folder of spooled files.
        are_read: `False`: they are scored already, so their files need not be there.

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
