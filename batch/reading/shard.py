"""A shard: what one reading task is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shard:
    """A stretch of one input file. Plain values only, so it can be pickled and written as JSON."""

    index: int
    """Position in the input, from 0."""

    location: str
    """File to read: absolute local path, or URI. For compressed and CSV input the spooled file."""

    name: str
    """What made-up ids and messages call the file that the user gave."""

    format: Literal["jsonl", "csv", "parquet"]
    """How the rows are written; `csv` is spooled CSV."""

    start: int
    """First byte, or first row of the file for Parquet, from 0."""

    stop: int
    """Byte or row after the last."""

    first_row: int
    """Number of the first row in the whole input, from 0."""

    rows: int
    """Rows to read; less than the stretch holds where `limit` ends the input."""

    first_line: int
    """Line of the file that `start` is on, or row for Parquet, from 1."""

    mtime_ns: int | None = None
    """The file's last change when it was cut; `None`: it is our own copy, or its store does not say."""

    notes: Sequence[Sequence[str]] = ()
    """Facts of the file that a reader should know, each (code, text) as `batch.reading.notes.Fact`."""

    def __post_init__(self) -> None:
        # JSON has lists only, and a shard that comes back from a run directory must equal the one that went in.
        object.__setattr__(self, "notes", tuple(tuple(note) for note in self.notes))
