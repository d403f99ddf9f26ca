import gzip
import json
import os
import pickle
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import InputError, SpecError, StorageError
from batch.reading import shards as module
from batch.reading.ranges import CountedRange, TextRange, count_range
from batch.reading.read import read_shard
from batch.reading.shards import _joined, find_shards
from schemas.job import InputSpec
from tests.reading.rows import carried, count_words, read_all

A = TypeVar("A")
B = TypeVar("B")


def lines(count: int, first: int = 0) -> bytes:
    return b"".join(orjson.dumps({"prompt": f"prompt {i}", "n": i}) + b"\n" for i in range(first, first + count))


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIN_SHARD_BYTES", 100)
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 200)
    monkeypatch.setattr(module, "MAX_PARQUET_ROWS", 7)


@pytest.mark.usefixtures("small_shards")
def test_rows_are_numbered_over_all_files_in_order(tmp_path: Path) -> None:
    """Whatever the formats, rows come out in input order, numbered from 0, with their own file's lines."""
    (tmp_path / "a.jsonl").write_bytes(lines(20))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(20, 20), mtime=0))
    (tmp_path / "c.jsonl.zst").write_bytes(pa.compress(lines(20, 40), codec="zstd", asbytes=True))
    (tmp_path / "d.csv").write_text("prompt,n\n" + "".join(f"prompt {i},{i}\n" for i in range(60, 80)))
    table = pa.table({"prompt": [f"prompt {i}" for i in range(80, 100)], "n": list(range(80, 100))})
    pq.write_table(table, tmp_path / "e.parquet", row_group_size=9)
    rows = read_all(InputSpec(path=str(tmp_path)), tmp_path / "spool")
    assert [row["row"] for row in rows] == list(range(100))
    assert [row["text"] for row in rows] == [f"prompt {i}" for i in range(100)]
    assert [int((carried(row) or {})["n"]) for row in rows] == list(range(100))
    assert [row["line"] for row in rows] == [*range(1, 21)] * 3 + [*range(2, 22)] + [*range(1, 21)]
    assert [rows[i]["id"] for i in (0, 20, 40, 60, 80)] == [
        "a.jsonl:1",
        "b.jsonl.gz:1",
        "c.jsonl.zst:1",
        "d.csv:2",
        "e.parquet:1",
    ]
    assert all(row["id_hash"] is None for row in rows)


@pytest.mark.usefixtures("small_shards")
def test_the_same_input_is_cut_the_same_way_and_shards_can_be_stored(tmp_path: Path) -> None:
    """Shards are stable, small, and survive pickle and JSON."""
    (tmp_path / "a.jsonl").write_bytes(lines(50))
    spec = InputSpec(path=str(tmp_path / "a.jsonl"))
    shards = find_shards(spec, tmp_path / "spool")
    assert len(shards) > 5
    assert [shard.index for shard in shards] == list(range(len(shards)))
    assert find_shards(spec, tmp_path / "spool") == shards
    assert pickle.loads(pickle.dumps(shards)) == shards
    assert [type(shards[0])(**json.loads(json.dumps(asdict(shard)))) for shard in shards] == shards


@pytest.mark.usefixtures("small_shards")
def test_large_files_are_spooled_and_counted_through_the_mapper_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spooling and counting go through `map`, with functions and items that can be pickled."""
    monkeypatch.setattr(module, "WORTH_SPREADING_BYTES", 0)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines(20))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines(20), mtime=0))
    called: list[str] = []

    def elsewhere(function: Callable[[A], B], items: Iterable[A]) -> list[B]:
        called.append(function.__name__)
        return [pickle.loads(pickle.dumps(function))(pickle.loads(pickle.dumps(item))) for item in items]

    spec = InputSpec(path=str(folder))
    assert find_shards(spec, tmp_path / "spool", map=elsewhere) == find_shards(spec, tmp_path / "spool")
    assert called == ["spool_file", "count_range"]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("limit", [1, 3, 19, 20, 21, 55, 60, 1000])
def test_a_limit_keeps_the_first_rows_of_the_input(tmp_path: Path, limit: int) -> None:
    """A limit gives exactly the first rows, over all files."""
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines(20).split(b"\n")) + b"\n\n")
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines(20, 20), mtime=0))
    table = pa.table({"prompt": [f"prompt {i}" for i in range(40, 60)]})
    pq.write_table(table, tmp_path / "c.parquet")
    rows = read_all(InputSpec(path=str(tmp_path), limit=limit), tmp_path / "spool")
    assert [row["text"] for row in rows] == [f"prompt {i}" for i in range(min(limit, 60))]


def test_with_a_limit_only_the_needed_ranges_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a limit, a long input is not read to its end."""
    monkeypatch.setattr(module, "MIN_SHARD_BYTES", 100)
    monkeypatch.setattr(module, "MAX_SHARD_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(lines(1000))
    counted = 0

    def counting(part: TextRange) -> CountedRange:
        nonlocal counted
        counted += 1
        return count_range(part)

    monkeypatch.setattr(module, "count_range", counting)
    find_shards(InputSpec(path=str(tmp_path), limit=5), tmp_path / "spool")
    assert counted <= 4


def test_blank_lines_a_byte_order_mark_and_a_missing_last_line_end_are_no_rows(tmp_path: Path) -> None:
    """Blank lines count as lines and not as rows; a BOM and a missing last line end change nothing."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt":"a"}\r\n\r\n  \t\n\n{"prompt":"b"}')
    rows = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert [(row["line"], row["text"], row["error_kind"]) for row in rows] == [(1, "a", None), (5, "b", None)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n \n\t\n"),
        ("a.csv", b""),
        ("a.csv", b"prompt,n\n"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("a.jsonl.gz", b""),
    ],
)
def test_an_input_without_rows_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    """An input without a single row is an input error that names it."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"^[^\n]*: no rows; the input is empty$"):
        find_shards(InputSpec(path=str(path)), tmp_path / "spool")


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    """A Parquet file without rows is an empty input too; beside other files it is ignored."""
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no rows"):
        find_shards(InputSpec(path=str(tmp_path)), tmp_path / "spool")
    (tmp_path / "b.jsonl").write_bytes(lines(2))
    assert [shard.rows for shard in find_shards(InputSpec(path=str(tmp_path)), tmp_path / "spool")] == [2]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"not parquet"),
        ("a.parquet", b""),
        ("a.jsonl.gz", b"not gzip"),
        ("a.jsonl.gz", gzip.compress(bytes(range(256)) * 99, mtime=0)[:-20]),
        ("a.jsonl.zst", b"not zstd"),
    ],
)
def test_a_broken_file_is_refused_in_one_line_and_leaves_no_spooled_file(
    tmp_path: Path, name: str, content: bytes
) -> None:
    """A file that cannot be decoded as its name says is refused in one line with its name."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{name}: [^\n]+(write it again|fetch it again)$"):
        find_shards(InputSpec(path=str(path)), tmp_path / "spool")
    assert not list((tmp_path / "spool").glob("*.jsonl"))


def test_a_spooled_file_is_used_again_until_its_source_changes(tmp_path: Path) -> None:
    """A spooled file is not written again; a changed source gets a new one."""
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(lines(3), mtime=0))
    spec = InputSpec(path=str(path))
    (first,) = find_shards(spec, tmp_path / "spool")
    before = Path(first.location).stat()
    assert find_shards(spec, tmp_path / "spool") == [first]
    assert Path(first.location).stat() == before
    path.write_bytes(gzip.compress(lines(40), mtime=0))
    (changed,) = find_shards(spec, tmp_path / "spool")
    assert changed.rows == 40
    assert len(list((tmp_path / "spool").glob("*.jsonl"))) == 2


def test_a_spool_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    """A spool that cannot be written raises a StorageError, because the input is not at fault."""
    (tmp_path / "a.csv").write_text("prompt\nhi\n")
    (tmp_path / "spool").write_text("a file is in the way")
    with pytest.raises(StorageError):
        find_shards(InputSpec(path=str(tmp_path / "a.csv")), tmp_path / "spool")


def test_a_file_that_shrank_after_counting_is_refused(tmp_path: Path) -> None:
    """A file that has fewer rows than were counted is an input error, never a shorter result."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(9))
    spec = InputSpec(path=str(path))
    (shard,) = find_shards(spec, tmp_path / "spool")
    path.write_bytes(lines(8))
    with pytest.raises(InputError, match=r"^a\.jsonl: changed during the run"):
        read_shard(shard, spec, count_words)
    path.unlink()
    with pytest.raises(InputError, match=r"^a\.jsonl: no such file"):
        read_shard(shard, spec, count_words)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_file_that_was_edited_after_counting_is_refused(tmp_path: Path, name: str) -> None:
    """No run mixes rows of the old and the new file, even if their number is equal; a spooled file stays as it was."""
    path = tmp_path / name

    def write(prompt: str) -> None:
        if path.suffix == ".parquet":
            pq.write_table(pa.table({"prompt": [prompt]}), path)
        else:
            path.write_text(f"prompt\n{prompt}\n" if path.suffix == ".csv" else f'{{"prompt": "{prompt}"}}\n')

    write("old")
    spec = InputSpec(path=str(path))
    (shard,) = find_shards(spec, tmp_path / "spool")
    assert read_shard(shard, spec, count_words)["text"].to_pylist() == ["old"]
    write("new")
    # Sets a new time, because the file system's clock may be too coarse.
    os.utime(path, ns=(0, 1))
    if path.suffix == ".csv":
        assert read_shard(shard, spec, count_words)["text"].to_pylist() == ["old"]
        return
    with pytest.raises(
        InputError,
        match=rf"^{name}: changed during the run; put the file back as it was and rerun .* start again with --fresh$",
    ):
        read_shard(shard, spec, count_words)


BRACES = "; write {{ and }} for braces in the text"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"prompt": "{question}"},
            "input.prompt: no row has the column 'question'; the first row has: prompt, n" + BRACES,
        ),
        ({"id_column": "key"}, "input.id_column: no row has the column 'key'; the first row has: prompt, n"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_column_that_no_row_has_is_refused_up_front(
    tmp_path: Path, name: str, settings: dict[str, str], message: str
) -> None:
    """A column that the spec names and no row has is an input error, in every format."""
    path = tmp_path / name
    match path.suffix:
        case ".jsonl":
            path.write_bytes(lines(3))
        case ".csv":
            path.write_text("prompt,n\na,1\n")
        case _:
            pq.write_table(pa.table({"prompt": ["a"], "n": [1]}), path)
    with pytest.raises(InputError) as caught:
        find_shards(InputSpec.model_validate({"path": str(path), **settings}), tmp_path / "spool")
    assert str(caught.value) == message


@pytest.mark.usefixtures("small_shards")
def test_a_column_that_only_a_late_row_has_passes(tmp_path: Path) -> None:
    """It is enough that one row has the column; the other rows are invalid."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(30) + b'{"question":"Why?"}\n')
    rows = read_all(InputSpec(path=str(path), prompt="{question}"), tmp_path / "spool")
    assert [row["error_kind"] for row in rows] == ["missing_column"] * 30 + [None]


def test_an_input_in_no_known_shape_is_refused_with_its_columns(tmp_path: Path) -> None:
    """If no row has a known shape, the message lists the columns that a template could use."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question":"Why?","answer":"So."}\n')
    with pytest.raises(InputError, match="give a template over its columns: question, answer"):
        find_shards(InputSpec(path=str(path)), tmp_path / "spool")


def test_an_input_of_broken_lines_alone_is_not_refused(tmp_path: Path) -> None:
    """If no line can be parsed, every row has its own error instead."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{broken\n[1]\n")
    rows = read_all(InputSpec(path=str(path), prompt="{question}"), tmp_path / "spool")
    assert [row["error_kind"] for row in rows] == ["invalid_json", "wrong_type"]


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt": "{a.b}"},
        {"params": {"model": "gpt-4"}},
        {"params": {"stream": True}},
        {"params": {"messages": []}},
        {"params": {"max_tokens": "many"}},
        {"params": {"n": True}},
        {"params": {"logit_bias": {1: object()}}},
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_up_front(tmp_path: Path, settings: dict[str, object]) -> None:
    """A template or parameters that no request can have are refused in one line before any row is read."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(1))
    with pytest.raises(SpecError, match=r"^input\.(prompt|params)[^\n]+$"):
        find_shards(InputSpec.model_validate({"path": str(path), **settings}), tmp_path / "spool")


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 30))
def test_row_groups_are_joined_and_cut_without_gaps(sizes: list[int], most: int) -> None:
    """Parquet row ranges follow each other without gaps and none exceeds the limit or is empty."""
    ranges = list(_joined(sizes, most))
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges)][: len(ranges)]
    assert sum(stop - start for start, stop in ranges) == sum(sizes)
    assert all(0 < stop - start <= most for start, stop in ranges)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("in.jsonl", '{"prompt":"a"}\n'.encode("utf-16"), "in.jsonl: is UTF-16 text; save it as UTF-8"),
        ("in.jsonl", gzip.compress(b'{"prompt":"a"}\n', mtime=0), "compressed with gzip; give its name the ending .gz"),
        (
            "in.parquet",
            b"version https://git-lfs.github.com/spec/v1\noid\n",
            "a Git LFS pointer; fetch the file itself",
        ),
        ("in.csv", b"PAR1....", "is Parquet; give its name the ending .parquet"),
        ("in.jsonl", b"<html><body>Sign in</body></html>\n", "an HTML page; download the data itself"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    """One line names the file, what it is and what to do, before any of it is taken for rows."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        find_shards(InputSpec(path=str(tmp_path / name)), tmp_path / "spool")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["QUESTION", " Question ", "ques_tion"])
def test_a_column_that_is_spelled_otherwise_is_pointed_out(tmp_path: Path, name: str) -> None:
    """Snowflake writes names in capitals and spreadsheets leave spaces, which are hard to see in a list of columns."""
    path = tmp_path / "a.csv"
    path.write_text(f"n,{name}\n1,a\n")
    with pytest.raises(InputError, match=rf"; {re.escape(repr(name))} is another name, since case and spaces count"):
        find_shards(InputSpec(path=str(path), prompt="{question}"), tmp_path / "spool")
