"""Notes on an input, for the user: what the reader decided by itself, and which data it left out of the requests.

A note is a fact, the number of rows it holds for, and one of these rows as an example. The reader collects notes while
it reads a shard; they are stored in the metadata of the scored part, summed over shards, and printed once each by
`check`, `estimate` and the report.

To add a note, use `Shaped.notes` for a fact about a row, or `Shard.notes` for a fact about the input's files. A fact
may name columns, but must not quote values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

METADATA_KEY = b"batchrouter.notes"

# A fact may name a column. If every row has different columns, this many facts are enough.
MOST_NOTES = 50


class Fact(NamedTuple):
    """The statement of a note, without its rows."""

    code: str
    """Stable name, as `embeddings`."""

    text: str
    """One clause for people, without a full stop; true of every row of the note."""


@dataclass(frozen=True, slots=True)
class Note:
    """A fact and the rows that it holds for."""

    code: str
    """Stable name, as `embeddings`."""

    text: str
    """One clause for people, without a full stop."""

    rows: int
    """Number of rows it holds for; 0 if it is about the input as a whole."""

    example: str
    """`<file>:<line>` of the first of these rows; the file's name if `rows` is 0."""

    def __str__(self) -> str:
        if not self.rows:
            return self.text
        if self.rows == 1:
            return f"{self.text} (1 row, {self.example})"
        return f"{self.text} ({self.rows:,} rows, the first is {self.example})"


class Notes:
    """Collects notes. The same facts in the same order give the same notes."""

    def __init__(self) -> None:
        self._found: dict[Fact, tuple[int, str]] = {}

    def add(self, fact: Fact, example: str, rows: int = 1) -> None:
        """Count `rows` more rows for which the fact holds; `example` is `<file>:<line>` of the first of them."""
        known = self._found.get(fact)
        if known is not None:
            self._found[fact] = (known[0] + rows, known[1])
        elif len(self._found) < MOST_NOTES:
            self._found[fact] = (rows, example)

    def merge(self, notes: Iterable[Note]) -> None:
        """Add the notes of another part of the input. Merge parts in input order: examples are then the first rows."""
        for note in notes:
            self.add(Fact(note.code, note.text), note.example, note.rows)

    def all(self) -> tuple[Note, ...]:
        """Every note once, in the order in which the facts were first added."""
        return tuple(Note(fact.code, fact.text, rows, example) for fact, (rows, example) in self._found.items())


def notes_to_metadata(notes: Iterable[Note]) -> dict[bytes, bytes]:
    """Encode notes as metadata of a table's schema."""
    stored = [[note.code, note.text, note.rows, note.example] for note in notes]
    return {METADATA_KEY: orjson.dumps(stored)} if stored else {}


def notes_from_metadata(metadata: Mapping[bytes, bytes] | None) -> tuple[Note, ...]:
    """Decode notes from metadata; empty for parts written by a version that had no notes."""
    raw = (metadata or {}).get(METADATA_KEY)
    stored: list[Any] = orjson.loads(raw) if raw is not None else []
    return tuple(Note(*values) for values in stored)
