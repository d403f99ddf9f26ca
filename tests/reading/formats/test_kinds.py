"""Damaged files, and files of another kind than their names say, are refused in one line that says what to do."""

import bz2
import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import InputError
from batch.reading.shards import find_shards
from schemas.job import CsvSpec, InputSpec
from tests.reading.rows import read_all

LINE = b'{"prompt":"a"}\n'


def refusal(folder: Path, name: str, content: bytes, **settings: Any) -> str:
    """The one-line refusal of a file with this name and content. Fails if the file is not refused."""
    path = folder / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        find_shards(InputSpec(path=str(path), **settings), folder / "spool")
    assert not list((folder / "spool").glob("*.jsonl")), "nothing of it may be left to read"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def tar() -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info = tarfile.TarInfo("in.jsonl")
        info.size = len(LINE)
        archive.addfile(info, io.BytesIO(LINE))
    return sink.getvalue()


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2"])
def test_a_file_that_only_its_name_compresses_should_lose_the_ending(tmp_path: Path, ending: str) -> None:
    """A download that was unpacked but kept its name is refused with the new name, without a library's words."""
    said = refusal(tmp_path, f"in.jsonl{ending}", LINE)
    assert said.startswith(f"in.jsonl{ending}: ")
    assert f"take {ending} off its name" in said


def test_another_kind_of_file_under_a_compressed_name_is_named(tmp_path: Path) -> None:
    """Pointers, archives and other compressions are named as they are under a plain name."""
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    assert "it is a Git LFS pointer; fetch" in refusal(tmp_path, "a.jsonl.gz", pointer)
    assert "it is a zip archive" in refusal(tmp_path, "a.csv.gz", b"PK\x03\x04rest")
    assert "it is compressed with gzip; give its name the ending .gz" in refusal(
        tmp_path, "a.jsonl.zst", gzip.compress(LINE, mtime=0)
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl.gz", gzip.compress(bytes(range(256)) * 99, mtime=0)[:-20]),
        ("a.json.gz", gzip.compress(b"[" + LINE + b"]", mtime=0)[:-4]),
        ("a.csv.bz2", bz2.compress(b"prompt\na\n" * 999)[:-9]),
        ("a.parquet", parquet(pa.table({"prompt": ["a"]}))[:-30]),
        ("a.arrow", arrow(pa.table({"prompt": ["a"]}))[:-30]),
    ],
)
def test_a_damaged_file_is_distinguished_from_one_of_another_kind(tmp_path: Path, name: str, content: bytes) -> None:
    """A file that begins as its name says but cannot be read to its end is called damaged or cut off."""
    said = refusal(tmp_path, name, content)
    assert said.startswith(f"{name}: ")
    assert "damaged or cut off" in said
    assert said.endswith("fetch or write it again")


def test_the_content_of_a_compressed_file_is_checked_too(tmp_path: Path) -> None:
    """An archive, a second compression or a Parquet file within gzip has no rows, so the file is refused."""
    assert "compressed in it is a tar archive; decompress it first, then unpack it" in refusal(
        tmp_path, "a.jsonl.gz", gzip.compress(tar(), mtime=0)
    )
    assert "compressed in it is compressed with gzip; decompress it first" in refusal(
        tmp_path, "b.jsonl.gz", gzip.compress(gzip.compress(LINE), mtime=0)
    )
    assert "compressed in it is Parquet; decompress" in refusal(
        tmp_path, "c.csv.gz", gzip.compress(parquet(pa.table({"prompt": ["a"]})), mtime=0)
    )


def test_text_under_a_binary_name_is_named_by_its_looks(tmp_path: Path) -> None:
    """If rows were saved under the wrong ending, the message names the right one."""
    assert "JSON Lines; give its name the ending .jsonl" in refusal(tmp_path, "a.parquet", LINE)
    assert "JSON array; give its name the ending .json" in refusal(tmp_path, "a.arrow", b"[" + LINE + b"]")
    assert "it is empty" in refusal(tmp_path, "b.parquet", b"")
    assert "begins with zeros" in refusal(tmp_path, "c.parquet", bytes(5000))


def test_json_lines_under_the_name_of_a_csv_are_not_taken_for_a_header(tmp_path: Path) -> None:
    """The first JSON row must not become the column names; a header in braces is still a header."""
    assert "JSON Lines, as it seems; give its name the ending .jsonl" in refusal(tmp_path, "a.csv", LINE * 3)
    path = tmp_path / "b.csv"
    path.write_bytes(b"{id},prompt\n1,a\n")
    assert [row["text"] for row in read_all(InputSpec(path=str(path)), tmp_path / "spool")] == ["a"]
    tabs = tmp_path / "c.tsv"
    tabs.write_bytes(b'{"k":1}\tb\n{"k":2}\tc\n')
    spec = InputSpec(path=str(tabs), csv=CsvSpec(columns=("meta", "prompt")))
    assert [row["text"] for row in read_all(spec, tmp_path / "spool")] == ["b", "c"]


@pytest.mark.parametrize("begin", [b"[\n", b"[", b"\xef\xbb\xbf [\r\n"])
def test_an_array_with_a_row_a_line_under_the_name_of_json_lines_is_refused_whole(tmp_path: Path, begin: bytes) -> None:
    """Otherwise only its last row, which no comma follows, would be sent and paid for."""
    said = refusal(tmp_path, "a.jsonl", begin + b'{"prompt":"a"},\n{"prompt":"b"},\n{"prompt":"c"}\n]\n')
    assert said == "a.jsonl: is one JSON array; give its name the ending .json"


@pytest.mark.parametrize(("name", "write"), [("a.parquet", parquet), ("a.arrow", arrow)])
def test_a_column_that_is_there_twice_is_refused_in_every_format(tmp_path: Path, name: str, write: object) -> None:
    """Joins can leave two columns of one name, and a template could mean either."""
    assert callable(write)
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"])
    assert refusal(tmp_path, name, write(table)) == f"{name}: two columns are called 'prompt'; rename one"


def test_a_csv_that_is_not_in_the_encoding_of_the_job_is_refused(tmp_path: Path) -> None:
    """UTF-16 without its byte order mark is reported as a wrong option, not as a bug."""
    said = refusal(tmp_path, "a.csv", b"id,prompt\n1,a\n", csv=CsvSpec(encoding="utf-16"))
    assert said == "a.csv: is not utf-16; set input.csv.encoding to what the file is in"
