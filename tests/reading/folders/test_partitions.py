"""Columns in the names of folders, as PyArrow and pandas read them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import InputError
from batch.reading.folders.partitions import partition_of
from batch.reading.notes import notes_from_metadata
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from batch.reading.sources import find_sources, fingerprint_sources
from schemas.job import InputSpec
from tests.reading.rows import carried, count_words, read_all


def write(folder: Path, name: str, text: str = "a") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": [text]}), path)
    elif path.suffix == ".csv":
        path.write_text(f"prompt\n{text}\n")
    else:
        path.write_text(f'{{"prompt":"{text}"}}\n')
    return path


@pytest.mark.parametrize(
    "values",
    [
        ["2024", "1"],
        ["01", "-5"],
        ["2147483647", "2147483648"],
        ["20240101123000", "1"],
        ["1.5", "2"],
        ["+1", "2"],
        ["true", "false"],
        ["a%20b%2Fc", "d=e"],
        ["__HIVE_DEFAULT_PARTITION__", "3"],
        ["__HIVE_DEFAULT_PARTITION__", "x"],
        ["2024-01-01", "2024-01-02"],
    ],
)
def test_values_have_the_types_that_pyarrow_gives_them(tmp_path: Path, values: list[str]) -> None:
    """Whole numbers that fit 32 bits in all folders are numbers, and the rest is text; percent codes are read."""
    for value in values:
        write(tmp_path, f"data/k={value}/part.parquet", value)
    expected = {row["prompt"]: row["k"] for row in pq.read_table(tmp_path / "data").to_pylist()}
    rows = read_all(InputSpec(path=str(tmp_path / "data")), tmp_path / "spool")
    assert {row["text"]: carried(row)["k"] for row in rows} == expected  # type: ignore[index]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_the_columns_are_those_of_every_row(tmp_path: Path, kind: str) -> None:
    """Templates, ids and carried columns can use the folder's columns, whatever format the files are in."""
    write(tmp_path, f"data/lang=fi/year=2024/0.{kind}", "hei")
    write(tmp_path, f"data/lang=en/year=2023/0.{kind}", "hello")
    spec = InputSpec(path=str(tmp_path / "data"), prompt="In {lang}, {year}: {prompt}", id_column="lang")
    rows = read_all(spec, tmp_path / "spool")
    assert [(row["id"], row["text"]) for row in rows] == [("en", "In en, 2023: hello"), ("fi", "In fi, 2024: hei")]
    assert carried(rows[0]) == {"prompt": "hello", "year": 2023}
    with pytest.raises(InputError, match="the first row has: prompt, lang, year"):
        find_shards(InputSpec(path=str(tmp_path / "data"), prompt="{nope}"), tmp_path / "spool")


def test_a_rows_own_column_is_not_replaced(tmp_path: Path) -> None:
    """A row's own value takes precedence over that of its folder."""
    path = tmp_path / "data" / "lang=en" / "0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"prompt":"a","lang":"fi"}\n{"prompt":"b"}\n')
    rows = read_all(InputSpec(path=str(tmp_path / "data")), tmp_path / "spool")
    assert [carried(row) for row in rows] == [{"lang": "fi"}, {"lang": "en"}]


def test_a_column_that_differs_from_the_folder_is_noted_once(tmp_path: Path) -> None:
    """The note counts the rows whose own value differs; the same value as text, or no value, does not count."""
    path = tmp_path / "data" / "lang=en" / "year=2024" / "0.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"prompt":"a","lang":"fi","year":"2024"}\n{"prompt":"b"}\n{"prompt":"c","lang":null,"year":2023}\n'
        '{"prompt":"d","lang":"en","year":2024}\n'
    )
    spec = InputSpec(path=str(tmp_path / "data"))
    tables = [read_shard(shard, spec, count_words) for shard in find_shards(spec, tmp_path / "spool")]
    notes = [note for table in tables for note in notes_from_metadata(table.schema.metadata)]
    assert [(note.code, "`lang`" in note.text, note.rows, note.example) for note in notes] == [
        ("folder_differs", True, 2, "0.jsonl:1"),
        ("folder_differs", False, 1, "0.jsonl:3"),
    ]


@pytest.mark.parametrize(
    "asked", ["data", "data/", "data/lang=en", "data/lang=*", "data/*/*.jsonl", "data/**", "data/lang=en/0.jsonl"]
)
def test_folders_globs_and_names_give_the_same_columns(tmp_path: Path, asked: str) -> None:
    """A file has the same columns, whether `input.path` has its folder, a glob or its name."""
    write(tmp_path, "data/lang=en/0.jsonl")
    if asked == "data/lang=*":
        asked += "/*.jsonl"
    (source,) = find_sources(InputSpec(path=f"{tmp_path}/{asked}"))
    assert source.partition == (("lang", "en"),)


@pytest.mark.parametrize(
    ("root", "inner", "expected"),
    [
        ("/x/run=3/data", "a.jsonl", ()),
        ("/x/run=3/data", "k=1/sub/l=2/a.jsonl", (("k", "1"), ("l", "2"))),
        ("/x/k=1/l=2", "a.jsonl", (("k", "1"), ("l", "2"))),
        ("/x", "=1/k=/a=b.jsonl", (("k", ""),)),
        ("/x", "k=1/k=2/a.jsonl", (("k", "2"),)),
    ],
)
def test_folders_far_above_are_not_part_of_the_table(
    root: str, inner: str, expected: tuple[tuple[str, str | None], ...]
) -> None:
    """Columns come only from folders below the named one, and from `key=value` folders at the end of its path."""
    assert partition_of(root, inner) == expected


def test_a_renamed_partition_is_another_input(tmp_path: Path) -> None:
    """The partition is in the fingerprint, so that a run does not resume if its stored rows would have others."""
    write(tmp_path, "data/lang=en/0.jsonl")
    spec = InputSpec(path=str(tmp_path / "data"))
    before = fingerprint_sources(find_sources(spec))[0]["partition"]
    (tmp_path / "data" / "lang=en").rename(tmp_path / "data" / "lang=fi")
    assert (before, fingerprint_sources(find_sources(spec))[0]["partition"]) == ({"lang": "en"}, {"lang": "fi"})


def test_files_that_lakes_write_beside_the_data_are_left_out(tmp_path: Path) -> None:
    """Logs, markers and drafts whose names begin with `_` or `.` are not read, unless `input.path` names them."""
    write(tmp_path, "lake/_hour=1/0.jsonl")
    (only,) = find_sources(InputSpec(path=str(tmp_path / "lake")))
    assert only.partition == (("_hour", 1),)
    names = ("a.jsonl", "_SUCCESS", "_delta_log/00000.jsonl", "_temporary/b.jsonl", "sub/_c.jsonl", ".d.jsonl")
    for name in names:
        write(tmp_path, f"data/{name}")

    def found(asked: str) -> list[str]:
        return [source.name for source in find_sources(InputSpec(path=f"{tmp_path}/data/{asked}"))]

    assert found("") == found("*.jsonl") == found("**") == ["a.jsonl"]
    assert found("_delta_log") == ["00000.jsonl"]
    assert found("sub/_*.jsonl") == found("sub/_c.jsonl") == ["_c.jsonl"]
    with pytest.raises(InputError, match="without names that begin with"):
        found("sub")
