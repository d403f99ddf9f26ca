"""What a reader should know of an input, gathered while it is read."""

from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from batch.reading.notes import MOST_NOTES, Fact, Note, Notes, notes_from_metadata, notes_to_metadata
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from schemas.job import InputSpec
from tests.reading.rows import Row, count_words

USER = {"role": "user", "content": "hi"}


def notes_of(folder: Path, lines: list[Row], **settings: object) -> dict[str, Note]:
    """The notes of a file `in.jsonl` with these lines, by code."""
    path = folder / "in.jsonl"
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    spec = InputSpec.model_validate({"path": str(path), **settings})
    tables = [read_shard(shard, spec, count_words) for shard in find_shards(spec, folder / "spool")]
    return {note.code: note for table in tables for note in notes_from_metadata(table.schema.metadata)}


def test_a_fact_is_counted_over_parts_and_keeps_its_first_example() -> None:
    """Merged in input order, equal facts become one note with the sum of their rows."""
    whole = Notes()
    for example, rows in (("a.jsonl:3", 2), ("a.jsonl:9", 5)):
        part = Notes()
        part.add(Fact("x", "something"), example, rows)
        whole.merge(part.all())
    assert whole.all() == (Note("x", "something", 7, "a.jsonl:3"),)
    assert str(whole.all()[0]) == "something (7 rows, the first is a.jsonl:3)"
    assert str(Note("x", "something", 1, "a.jsonl:3")) == "something (1 row, a.jsonl:3)"


def test_notes_survive_the_schema_of_a_table() -> None:
    """What is stored is what comes back; a part without notes has none."""
    notes = (Note("x", "some “thing”", 3, "a.jsonl:1"), Note("y", "other", 1, "a.jsonl:2"))
    table = pa.table({"a": [1]}).replace_schema_metadata(notes_to_metadata(notes))
    assert notes_from_metadata(table.append_column("b", pa.array([2])).schema.metadata) == notes
    assert notes_from_metadata(None) == ()
    assert notes_to_metadata(()) == {}


def test_facts_without_end_are_bounded() -> None:
    """An input whose every row gives another fact does not grow the notes with it."""
    notes = Notes()
    for i in range(3 * MOST_NOTES):
        notes.add(Fact("x", f"column {i}"), f"a.jsonl:{i}")
    assert len(notes.all()) == MOST_NOTES


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"messages": [USER, {"role": "assistant", "content": "Sure,"}]}, {"ends_with_assistant"}),
        ({"messages": [USER, {"role": "assistant", "content": "Yes."}, USER]}, set()),
        ({"input": "lake"}, {"embeddings"}),
        ({"prompt": "hi"}, set()),
    ],
)
def test_what_was_found_by_itself_is_noted(tmp_path: Path, line: Row, expected: set[str]) -> None:
    """A conversation that ends with the assistant, and a row that is taken for an embedding request, are noted."""
    assert set(notes_of(tmp_path, [line])) == expected
