"""What a reader should know of an input: what was found by itself, and what was left out of the requests.

A note is one fact, the number of rows that it holds for, and one of them. Notes are gathered while a shard is read,
stored in the scored part's schema, summed over shards, and printed once each by `check`, `estimate` and the report.

To add one: `Shaped.notes` for a fact of a row, `Shard.notes` for one of the input's files. A fact must not quote what
a row holds: the names of columns are fine, values are not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

METADATA_KEY = b"batchrouter.notes"

# A fact may name a column. Where every row has other columns, the first so many facts say enough.
MOST_NOTES = 50


class Fact(NamedTuple):
    """What a note says, apart from the rows that it holds for."""

    code: str
    """Stable name, as `embeddings`."""

    text: str
    """One clause for people, without a full stop, true of each of the rows."""


@dataclass(frozen=True, slots=True)
class Note:
    """A fact and the rows that it holds for."""

    code: str
    """Stable name, as `embeddings`."""

    text: str
    """One clause for people, without a full stop."""

    rows: int
    """Rows that it holds for; none where it is about the input, not its rows."""

    example: str
    """`<file>:<line>` of the first of them; the file where there are none."""

    def __str__(self) -> str:
        if not self.rows:
            return self.text
        if self.rows == 1:
            return f"{self.text} (1 row, {self.example})"
        return f"{self.text} ({self.rows:,} rows, the first is {self.example})"


class Notes:
    """Gathers notes. The same facts in the same order give the same notes."""

    def __init__(self) -> None:
        self._found: dict[Fact, tuple[int, str]] = {}

    def add(self, fact: Fact, example: str, rows: int = 1) -> None:
        """The fact holds for so many more rows; `example` is `<file>:<line>` of the first of these."""
        known = self._found.get(fact)
        if known is not None:
            self._found[fact] = (known[0] + rows, known[1])
        elif len(self._found) < MOST_NOTES:
            self._found[fact] = (rows, example)

    def merge(self, notes: Iterable[Note]) -> None:
        """Add what another part of the input gave; parts are merged in input order, so that examples are the first."""
        for note in notes:
            self.add(Fact(note.code, note.text), note.example, note.rows)

    def all(self) -> tuple[Note, ...]:
        """Every note once, in the order in which the facts were met."""
        return tuple(Note(fact.code, fact.text, rows, example) for fact, (rows, example) in self._found.items())


def notes_to_metadata(notes: Iterable[Note]) -> dict[bytes, bytes]:
    """Notes as the metadata of a table's schema."""
    stored = [[note.code, note.text, note.rows, note.example] for note in notes]
    return {METADATA_KEY: orjson.dumps(stored)} if stored else {}


def notes_from_metadata(metadata: Mapping[bytes, bytes] | None) -> tuple[Note, ...]:
    """The same back; none where a part was written by a version that had no notes."""
    raw = (metadata or {}).get(METADATA_KEY)
    stored: list[Any] = orjson.loads(raw) if raw is not None else []
    return tuple(Note(*values) for values in stored)
