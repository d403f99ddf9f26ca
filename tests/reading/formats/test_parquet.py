import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.reading import shards
from schemas.job import InputSpec
from tests.reading.rows import Row, body, carried, read_all


def read_table(folder: Path, table: Any, **settings: Any) -> list[Row]:
    path = folder / "in.parquet"
    pq.write_table(table, path, row_group_size=settings.pop("row_group_size", 1000))
    return read_all(InputSpec(path=str(path), **settings), folder / "spool")


def test_columns_of_every_type_are_carried_as_json(tmp_path: Path) -> None:
    """Times, decimals, bytes, nested values and NaN are carried in a form that JSON supports."""
    at = dt.datetime(2024, 5, 6, 7, 8, 9, tzinfo=dt.UTC)
    table = pa.table(
        {
            "prompt": ["a"],
            "utc": pa.array([at], pa.timestamp("ns", "UTC")),
            "day": [at.date()],
            "clock": [at.time()],
            "wait": [dt.timedelta(seconds=1.5)],
            "price": [Decimal("12.340")],
            "raw": [b"\xff\x00"],
            "text": [b"text"],
            "nan": [float("nan")],
            "big": pa.array([2**64 - 1], pa.uint64()),
            "nested": [[{"x": [Decimal("1.5"), None]}]],
            "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
            "word": pa.array(["w"]).dictionary_encode(),
            "none": pa.nulls(1),
        }
    )
    (row,) = read_table(tmp_path, table)
    assert carried(row) == {
        "utc": "2024-05-06T07:08:09+00:00",
        "day": "2024-05-06",
        "clock": "07:08:09",
        "wait": 1.5,
        "price": "12.340",
        "raw": "/wA=",
        "text": "text",
        "nan": "NaN",
        "big": 2**64 - 1,
        "nested": [{"x": ["1.5", None]}],
        "map": [["k", 1]],
        "word": "w",
        "none": None,
    }


def test_messages_in_structs_lose_the_fields_that_are_null(tmp_path: Path) -> None:
    """In Parquet a struct has every field; a message is sent without those that are null."""
    table = pa.table(
        {
            "messages": [
                [{"role": "user", "content": "a", "name": None}],
                [{"role": "user", "content": "b", "name": "Ann"}],
            ],
            "temperature": [0.0, None],
            "meta": [{"x": None}, {"x": None}],
        }
    )
    rows = read_table(tmp_path, table)
    assert body(rows[0]) == {"messages": [{"role": "user", "content": "a"}], "temperature": 0.0}
    assert body(rows[1]) == {"messages": [{"role": "user", "content": "b", "name": "Ann"}]}
    assert carried(rows[0]) == {"meta": {"x": None}}


def test_a_template_formats_numbers_and_times(tmp_path: Path) -> None:
    """Numbers, decimals and dates of a row go into its prompt as text; null makes it invalid."""
    table = pa.table({"n": [1, None], "x": [1.5, 2.5], "d": [Decimal("2.50")] * 2, "t": [dt.date(2024, 5, 6)] * 2})
    good, bad = read_table(tmp_path, table, prompt="{n} {x} {d} {t}")
    assert good["text"] == "1 1.5 2.50 2024-05-06"
    assert (bad["error_kind"], bad["error_message"]) == (
        "missing_column",
        "in.parquet:2: column 'n' is null; write {n?} where a blank will do instead",
    )


def test_one_bad_cell_spoils_one_row(tmp_path: Path) -> None:
    """A prompt that is not UTF-8 makes its own row invalid; a date beyond the calendar makes no row invalid."""
    text = pa.array([b"good", b"\xff", b"fine", b"late"], pa.binary()).view(pa.string())
    when = pa.array([0, 1, 2, 10**14], pa.int64()).cast(pa.timestamp("s"))
    rows = read_table(tmp_path, pa.table({"prompt": text, "when": when}))
    assert [row["error_kind"] for row in rows] == [None, "invalid_encoding", None, None]
    assert [row["text"] for row in rows] == ["good", None, "fine", "late"]


@pytest.mark.parametrize("group", [1, 3, 10, 100])
@pytest.mark.parametrize("most", [1, 4, 7, 100])
def test_rows_are_the_same_however_groups_and_shards_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, most: int
) -> None:
    """Row groups and shards of any size give the same rows, ids and lines."""
    monkeypatch.setattr(shards, "MAX_PARQUET_ROWS", most)
    table = pa.table({"id": [f"r{i}" for i in range(30)], "prompt": [f"p{i}" for i in range(30)]})
    rows = read_table(tmp_path, table, row_group_size=group)
    assert [(row["id"], row["text"], row["row"], row["line"]) for row in rows] == [
        (f"r{i}", f"p{i}", i, i + 1) for i in range(30)
    ]


def test_long_rows_make_smaller_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard of long rows holds fewer of them."""
    monkeypatch.setattr(shards, "MAX_PARQUET_BYTES", 10_000)
    table = pa.table({"prompt": [f"{i} " + "x" * 1000 for i in range(50)]})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, use_dictionary=False)
    found = shards.find_shards(InputSpec(path=str(path)), tmp_path / "spool")
    assert max(shard.rows for shard in found) <= 10
    assert sum(shard.rows for shard in found) == 50
