"""Scored and routed parts."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import StorageError
from batch.runs.parts import iter_part, iter_routed, read_part, routed_rows, write_part


def table(rows: int, body_bytes: int = 10) -> pa.Table:
    return pa.table({"row": pa.array(range(rows), pa.int64()), "body": [b"x" * body_bytes] * rows})


def test_a_part_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """Types and rows are read back, columns can be chosen, and columns that the part lacks are left out."""
    path = tmp_path / "scored" / "00000.parquet"
    write_part(path, table(10))
    assert read_part(path) == table(10)
    assert read_part(path, ["body", "absent"]).column_names == ["body"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_routed_part_is_read_in_bounded_batches(tmp_path: Path) -> None:
    """Batches are in order and have at most the given number of rows; a missing routed part has no rows."""
    path = tmp_path / "00000.parquet"
    write_part(path, table(2500))
    batches = list(iter_routed(path, 1000))
    assert max(batch.num_rows for batch in batches) <= 1000
    assert pa.Table.from_batches(batches) == table(2500)
    assert routed_rows(path) == list(range(2500))
    assert list(iter_routed(tmp_path / "absent")) == []
    assert routed_rows(tmp_path / "absent") == []


def test_row_groups_are_bounded_in_bytes(tmp_path: Path) -> None:
    """Long prompts make small row groups, so that a reader holds a few megabytes of any part; an empty part is fine."""
    path = tmp_path / "00000.parquet"
    write_part(path, table(100, 1_000_000))
    groups = pq.ParquetFile(path).metadata
    assert max(groups.row_group(i).num_rows for i in range(groups.num_row_groups)) <= 8
    write_part(path, table(0))
    assert read_part(path).num_rows == 0


def test_long_rows_come_a_row_group_at_a_time(tmp_path: Path) -> None:
    """A batch never spans several row groups, however many rows it may have: 100 MB are read 8 MB at a time."""
    path = tmp_path / "00000.parquet"
    write_part(path, table(100, 1_000_000))
    for batches in (iter_part(path), iter_routed(path, 512), iter_part(path, columns=["body"])):
        sizes = [batch.num_rows for batch in batches]
        assert max(sizes) <= 8
        assert sum(sizes) == 100


def test_a_damaged_part_is_a_storage_error(tmp_path: Path) -> None:
    """A part that is cut, missing or overwritten inside is refused in one line that names it."""
    path = tmp_path / "00000.parquet"
    write_part(path, table(2500))
    data = path.read_bytes()
    damaged = bytearray(data)
    damaged[4:200] = b"\xff" * 196
    for content in (data[:-10], b"", bytes(damaged)):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"cannot read .*00000.parquet"):
            list(iter_part(path))
        with pytest.raises(StorageError, match=r"cannot read .*00000.parquet"):
            read_part(path)
    path.unlink()
    with pytest.raises(StorageError, match="cannot read"):
        read_part(path)
