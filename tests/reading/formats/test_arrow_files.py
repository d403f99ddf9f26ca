"""Arrow files and streams, and the folders of Hugging Face's datasets."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from batch.errors import InputError
from batch.reading import shards
from batch.reading.shards import find_shards
from batch.reading.sources import find_sources
from schemas.job import InputSpec
from tests.reading.rows import body, carried, read_all


def table(rows: int = 10, first: int = 0) -> Any:
    return pa.table(
        {
            "prompt": [f"p{i}" for i in range(first, first + rows)],
            "at": pa.array([i * 1_000_000_001 for i in range(rows)], pa.timestamp("ns")),
            "kind": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
        }
    )


def write_stream(path: Path, what: Any, batch: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.ipc.new_stream(path, what.schema) as writer:
        writer.write_table(what, batch)


def write_file(path: Path, what: Any, batch: int = 3, compression: str | None = None) -> None:
    with pa.ipc.new_file(path, what.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(what, batch)


@pytest.mark.parametrize("most", [1, 4, 100])
@pytest.mark.parametrize("how", ["stream", "file", "zstd", "lz4", "feather", "polars"])
def test_rows_are_the_same_however_they_are_stored_and_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, most: int
) -> None:
    """Streams, files, compressed files and Polars' files give the rows that Parquet gives, in shards of any size."""
    monkeypatch.setattr(shards, "MAX_PARQUET_ROWS", most)
    path = tmp_path / "in.arrow"
    match how:
        case "stream":
            write_stream(path, table())
        case "file":
            write_file(path, table())
        case "feather":
            path = tmp_path / "in.feather"
            pyarrow.feather.write_feather(table(), path)
        case "polars":
            path = tmp_path / "in.ipc"
            pl.from_arrow(table()).write_ipc(path)  # type: ignore[union-attr]  # a table gives a frame
        case _:
            write_file(path, table(), compression=how)
    pq.write_table(table(), tmp_path / "in.parquet")
    expected = read_all(InputSpec(path=str(tmp_path / "in.parquet")), tmp_path / "spool")
    rows = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    for mine, right in zip(rows, expected, strict=True):
        for key in ("row", "line", "text", "carry", "hash"):
            assert mine[key] == right[key]
    assert carried(rows[1]) == {"at": "1970-01-01T00:00:01.000000001", "kind": "b"}


def test_messages_in_an_arrow_file_lose_the_fields_that_are_null(tmp_path: Path) -> None:
    """A message in an Arrow file loses its null fields, as a message in Parquet does."""
    write_stream(tmp_path / "in.arrow", pa.table({"messages": [[{"role": "user", "content": "a", "name": None}]]}))
    (row,) = read_all(InputSpec(path=str(tmp_path / "in.arrow")), tmp_path / "spool")
    assert body(row) == {"messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize("content", [b"", b"ARROW1\0\0broken", b"\xff\xff\xff\xff\x10\0\0\0", b"plain text\n"])
def test_a_broken_file_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    """A file that is not an Arrow file raises an InputError of one line."""
    (tmp_path / "in.arrow").write_bytes(content)
    with pytest.raises(InputError) as caught:
        find_shards(InputSpec(path=str(tmp_path / "in.arrow")), tmp_path / "spool")
    assert "\n" not in str(caught.value)


def save(folder: Path, *files: Any) -> None:
    """Write a dataset as `save_to_disk` does: files in the order of `state.json`, which differs from that of names."""
    names = [f"data-{len(files) - 1 - at:05}-of-{len(files):05}.arrow" for at in range(len(files))]
    for name, what in zip(names, files, strict=True):
        write_stream(folder / name, what)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None, "_fingerprint": "0"}
    (folder / "state.json").write_text(json.dumps(state, indent=2))
    (folder / "dataset_info.json").write_text('{"features": {}}')


def test_a_saved_dataset_is_its_own_files_in_its_own_order(tmp_path: Path) -> None:
    """Caches, files of an earlier save and descriptions in the same folder are not read as rows."""
    save(tmp_path / "ds", table(2), table(2, first=2))
    write_stream(tmp_path / "ds" / "cache-0123456789abcdef.arrow", table(4, first=100))
    rows = read_all(InputSpec(path=str(tmp_path / "ds")), tmp_path / "spool")
    assert [row["text"] for row in rows] == ["p0", "p1", "p2", "p3"]
    (tmp_path / "ds" / "data-00000-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="a file of the dataset is missing"):
        find_sources(InputSpec(path=str(tmp_path / "ds")))


def test_a_saved_dataset_dict_is_all_its_splits(tmp_path: Path) -> None:
    """Splits come in the dictionary's order, and `input.path` may name the folder of one."""
    save(tmp_path / "ds" / "train", table(2))
    save(tmp_path / "ds" / "test", table(2, first=2))
    (tmp_path / "ds" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    rows = read_all(InputSpec(path=str(tmp_path / "ds")), tmp_path / "spool")
    assert [row["text"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert rows[0]["id"] == "train/data-00000-of-00001.arrow:1"
    (only, *_) = read_all(InputSpec(path=str(tmp_path / "ds" / "test")), tmp_path / "spool")
    assert only["text"] == "p2"


def test_json_beside_other_files_describes_them(tmp_path: Path) -> None:
    """A .json file is read if it is named or if all files are .json; beside other files it counts as metadata."""
    (tmp_path / "a.jsonl").write_text('{"prompt":"a"}\n')
    (tmp_path / "info.json").write_text('{"made_by":"a tool"}\n')

    def found(asked: str) -> list[str]:
        return [source.name for source in find_sources(InputSpec(path=f"{tmp_path}/{asked}"))]

    assert found("") == found("*") == ["a.jsonl"]
    assert found("*.json") == found("info.json") == ["info.json"]
    (tmp_path / "a.jsonl").unlink()
    assert found("") == ["info.json"]
