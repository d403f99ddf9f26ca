"""Rows of Parquet files, as JSON-friendly values."""

from base64 import b64encode
from collections.abc import Iterator, KeysView, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch.reading.invalid import InvalidRow
from batch.reading.shapes import REQUEST_COLUMNS
from batch.reading.shard import Shard
from batch.reading.sources import open_file, reading

BATCH_ROWS = 4096
# Of long rows a batch has fewer: a row group may hold gigabytes, and the shard only a few rows of it.
BATCH_BYTES = 16 << 20
# A column is read in pieces of this size; without one, a whole row group's at once.
BUFFER_BYTES = 8 << 20


def parquet_columns(shard: Shard) -> KeysView[str]:
    """Names of the file's columns, in its order."""
    with reading(shard.name), open_file(shard.location) as file:
        return dict.fromkeys(pq.ParquetFile(file).schema_arrow.names).keys()


def parquet_records(shard: Shard, *, keep_nan: bool = False) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
    """Yield (row from 1, record) for the rows `start` to `stop`; a row with a value we cannot take comes as its fault.

    Times become ISO 8601, decimals their digits in a string, bytes text or else base64. What is not finite becomes
    null, as in JSON; with `keep_nan` it stays what it is in columns of floats.
    """
    line = shard.start + 1
    for batch in _batches(shard):
        names = batch.schema.names
        for record in _rows(batch, keep_nan):
            yield line, record if isinstance(record, InvalidRow) else dict(zip(names, record, strict=True))
            line += 1


def _batches(shard: Shard) -> Iterator[Any]:
    """Record batches that hold exactly the shard's rows."""
    with reading(shard.name), open_file(shard.location) as file:
        parquet = pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
        groups: list[int] = []
        first = skip = 0
        for group in range(parquet.metadata.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if first < shard.stop and first + size > shard.start:
                skip = skip if groups else shard.start - first
                groups.append(group)
            first += size
        left = shard.stop - shard.start
        # One core per shard: other shards have the other cores.
        for batch in parquet.iter_batches(_batch_rows(parquet, groups), row_groups=groups, use_threads=False):
            kept = batch.slice(min(skip, batch.num_rows), left)
            skip -= min(skip, batch.num_rows)
            left -= kept.num_rows
            if kept.num_rows:
                yield kept
            if not left:
                return


def _batch_rows(parquet: Any, groups: Sequence[int]) -> int:
    sizes = [(group.total_byte_size, group.num_rows) for group in map(parquet.metadata.row_group, groups)]
    longest = max((size // max(rows, 1) for size, rows in sizes), default=0)
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(longest, 1)))


def _rows(batch: Any, keep_nan: bool) -> Iterator[tuple[Any, ...] | InvalidRow]:
    try:
        named = zip(batch.schema.names, batch.columns, strict=True)
        columns = [_values(column, name, keep_nan) for name, column in named]
    except (ValueError, OverflowError):
        # One cell that Python cannot hold spoils the whole column, so go through it row by row.
        yield from (_row(batch.slice(i, 1), keep_nan) for i in range(batch.num_rows))
        return
    yield from zip(*columns, strict=True)


def _row(one: Any, keep_nan: bool) -> tuple[Any, ...] | InvalidRow:
    values = []
    for name, column in zip(one.schema.names, one.columns, strict=True):
        try:
            values += _values(column, name, keep_nan)
        except UnicodeDecodeError:
            return InvalidRow("invalid_encoding", f"column {name!r} is not UTF-8")
        except (ValueError, OverflowError):
            return InvalidRow("wrong_type", f"column {name!r} holds a value that is out of range")
    return tuple(values)


def _values(column: Any, name: str, keep_nan: bool) -> list[Any]:
    values: list[Any] = column.to_pylist()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return values
    if keep_nan and pa.types.is_floating(kind):
        return values
    values = [_plain(value) for value in values]
    return [_without_nulls(value) for value in values] if name in REQUEST_COLUMNS else values


def _plain(value: Any) -> Any:
    match value:
        case None | str() | bool() | int():
            return value
        case float():
            return value if isfinite(value) else None
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return str(value)
        case timedelta():
            return value.total_seconds()
        case bytes():
            return _readable(value)
    return str(value)


def _readable(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return b64encode(value).decode()


def _without_nulls(value: Any) -> Any:
    """Drop null fields: in Parquet every struct has all fields, in a request an absent one is left out.

    A struct whose fields are all null is `None`, and so left out itself.
    """
    match value:
        case dict():
            kept = {key: inner for key, field in value.items() if (inner := _without_nulls(field)) is not None}
            return kept if kept or not value else None
        case list():
            return [_without_nulls(inner) for inner in value]
    return value
