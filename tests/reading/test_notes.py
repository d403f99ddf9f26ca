"""Notes on an input, gathered while it is read."""

from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from batch.reading.notes import MOST_NOTES, Fact, Note, Notes, notes_from_metadata, notes_to_metadata
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from schemas.job import CsvSpec, InputSpec
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
    """Notes stored in a schema are read back; a table without notes has none."""
    notes = (Note("x", "some “thing”", 3, "a.jsonl:1"), Note("y", "other", 1, "a.jsonl:2"))
    table = pa.table({"a": [1]}).replace_schema_metadata(notes_to_metadata(notes))
    assert notes_from_metadata(table.append_column("b", pa.array([2])).schema.metadata) == notes
    assert notes_from_metadata(None) == ()
    assert notes_to_metadata(()) == {}


def test_facts_without_end_are_bounded() -> None:
    """An input with a different fact in each row has a bounded number of notes."""
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
def test_assumptions_about_a_row_are_noted(tmp_path: Path, line: Row, expected: set[str]) -> None:
    """A conversation that ends with the assistant, and a row that is read as an embedding request, are noted."""
    assert set(notes_of(tmp_path, [line])) == expected


def test_an_optional_column_that_no_row_has_is_noted(tmp_path: Path) -> None:
    """Without the note, a mistyped name would silently leave a blank in every prompt."""
    lines: list[Row] = [{"q": "a", "context": "x", "meta": {"t": None}}, {"q": "b", "context": None, "meta": None}]
    settings = {"prompt": "{q} {context?} {meta.t?} {contxt?} {contxt?}", "system": "{rules.first?}"}
    found = notes_of(tmp_path, lines, **settings)
    assert set(found) == {"optional_absent"}
    spec = InputSpec(path=str(tmp_path / "in.jsonl"), prompt=settings["prompt"], system=settings["system"])
    (shard,) = find_shards(spec, tmp_path / "spool")
    notes = notes_from_metadata(read_shard(shard, spec, count_words).schema.metadata)
    assert [str(note) for note in notes] == [
        "`{contxt?}` is blank, because there is no column `contxt` (2 rows, the first is in.jsonl:1)",
        "`{rules.first?}` is blank, because there is no column `rules` (2 rows, the first is in.jsonl:1)",
    ]


def file_notes(spec: InputSpec, spool: Path) -> list[str]:
    """The notes on the input's files, as they are printed."""
    notes = Notes()
    for shard in find_shards(spec, spool):
        notes.merge(notes_from_metadata(read_shard(shard, spec, count_words).schema.metadata))
    return [str(note) for note in notes.all() if not note.rows]


def test_files_of_a_folder_that_look_like_data_and_are_not_read_are_named(tmp_path: Path) -> None:
    """Files of other kinds may hold rows, so a note names them; files that only describe data are not named."""
    folder = tmp_path / "data"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.csv", "deep/train.json", "dataset_infos.json", "b.jsonl.xz", "c.TXT", "README.md", "_old.txt"):
        (folder / name).write_text("prompt\nx\n")
    why = "because .json files beside other kinds describe them"
    expected = [
        f"not read, {why}: train.json; name them in input.path where they hold rows",
        "not read, because their kind is not supported: b.jsonl.xz, c.TXT",
    ]
    assert file_notes(InputSpec(path=str(folder)), tmp_path / "spool") == expected
    assert file_notes(InputSpec(path=f"{folder}/**"), tmp_path / "spool") == expected
    assert file_notes(InputSpec(path=f"{folder}/*.csv"), tmp_path / "spool") == []
    assert file_notes(InputSpec(path=f"{folder}/a.csv"), tmp_path / "spool") == []


def test_csv_options_without_a_csv_file_are_noted(tmp_path: Path) -> None:
    """A note names an option without effect; an option that is used has no note."""
    (tmp_path / "a.jsonl").write_text('{"prompt":"a"}\n')
    (tmp_path / "b.csv").write_text("prompt;x\na;1\n")
    csv = CsvSpec(delimiter=";")
    said = file_notes(InputSpec(path=str(tmp_path / "a.jsonl"), csv=csv), tmp_path / "spool")
    assert said == ["`input.csv` is not used, because no file of the input is CSV"]
    assert file_notes(InputSpec(path=str(tmp_path / "b.csv"), csv=csv), tmp_path / "spool") == []
    assert file_notes(InputSpec(path=str(tmp_path / "a.jsonl")), tmp_path / "spool") == []
