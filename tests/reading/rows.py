"""Reading a whole input in a test: files in, the table's rows out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from schemas.job import InputSpec

Row = dict[str, Any]


def count_words(texts: Sequence[str]) -> list[int]:
    """One token a word."""
    return [len(text.split()) for text in texts]


def read_all(spec: InputSpec, spool: Path) -> list[Row]:
    """Every row of an input, in shard order."""
    tables = [read_shard(shard, spec, count_words) for shard in find_shards(spec, spool)]
    rows: list[Row] = pa.concat_tables(tables).to_pylist()
    return rows


def read_lines(folder: Path, lines: Sequence[bytes | Row], **settings: Any) -> list[Row]:
    """The rows of a file `in.jsonl` with these lines."""
    path = folder / "in.jsonl"
    path.write_bytes(b"".join((x if isinstance(x, bytes) else orjson.dumps(x)) + b"\n" for x in lines))
    return read_all(InputSpec(path=str(path), **settings), folder / "spool")


def body(row: Row) -> Row:
    """A row's request body."""
    parsed: Row = orjson.loads(row["body"])
    return parsed


def carried(row: Row) -> Row | None:
    """A row's other columns."""
    return None if row["carry"] is None else orjson.loads(row["carry"])
