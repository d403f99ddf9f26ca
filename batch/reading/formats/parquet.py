"""Reads rows of Parquet files, with values that JSON can hold."""

from collections.abc import Iterator, KeysView, Sequence
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.reading.exact import ExactRecord
from batch.reading.formats.arrow_values import plain_values
from batch.reading.invalid import InvalidRow
from batch.reading.shapes import REQUEST_COLUMNS
from batch.reading.shard import Shard
from batch.reading.sources import input_errors, open_file

BATCH_ROWS = 4096
# With long rows a batch has fewer rows: a row group may hold gigabytes, and the shard only a few of its rows.
BATCH_BYTES = 16 << 20
# A column is read in pieces of this size; without a buffer size, Arrow reads a whole row group's column at once.
BUFFER_BYTES = 8 << 20


def parquet_columns(shard: Shard) -> KeysView[str]:
    """Return the names of the file's columns, in the file's order."""
    with input_errors(shard.name), open_file(shard.location) as file:
        return dict.fromkeys(pq.ParquetFile(file).schema_arrow.names).keys()


def parquet_records(shard: Shard) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
    """Yield (row number from 1, record) for the rows `start` to `stop`; an InvalidRow for a value that cannot be used.

    Values are as `plain_values` returns them.
    """
    line = shard.start + 1
    for batch in _batches(shard):
        for record in batch_records(batch):
            yield line, record
            line += 1


def batch_records(batch: Any) -> Iterator[dict[str, Any] | InvalidRow]:
    """Yield the rows of a record batch, with values as `plain_values` returns them."""
    names = batch.schema.names
    try:
        columns = [_values(column, name) for name, column in zip(names, batch.columns, strict=True)]
    except (ValueError, OverflowError, pa.ArrowException):
        # One cell that Python cannot represent makes Arrow refuse the whole column, so convert row by row.
        if batch.num_rows > 1:
            for index in range(batch.num_rows):
                yield from batch_records(batch.slice(index, 1))
            return
        yield InvalidRow("wrong_type", f"column {_bad_column(batch)!r} holds a value that cannot be read")
        return
    odd = _not_finite(batch)
    for index, values in enumerate(zip(*columns, strict=True)):
        yield (ExactRecord if index in odd else dict)(zip(names, values, strict=True))


def _batches(shard: Shard) -> Iterator[Any]:
    """Yield record batches that hold exactly the shard's rows."""
    with input_errors(shard.name), open_file(shard.location) as file:
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
        # No threads: other tasks read other shards on the other cores.
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


def _values(column: Any, name: str) -> list[Any]:
    values = plain_values(column)
    if name not in REQUEST_COLUMNS or not pa.types.is_nested(column.type):
        return values
    if pa.types.is_map(column.type):
        # `plain_values` returns maps as lists of pairs; in requests they become objects.
        values = [None if pairs is None else dict(pairs) for pairs in values]
    return [_without_nulls(value) for value in values]


def _not_finite(batch: Any) -> frozenset[int]:
    """Return the rows that have NaN or an infinity in a column of floats."""
    found: set[int] = set()
    for column in batch.columns:
        if pa.types.is_floating(column.type):
            finite = pc.is_finite(column).fill_null(True)
            if not pc.all(finite).as_py():
                found.update(np.flatnonzero(~finite.to_numpy(zero_copy_only=False)).tolist())
    return frozenset(found)


def _bad_column(one: Any) -> str:
    """Return the first column whose value cannot be read, in a batch of one row."""
    for name, column in zip(one.schema.names, one.columns, strict=True):
        try:
            plain_values(column)
        except (ValueError, OverflowError, pa.ArrowException):
            return str(name)
    raise AssertionError("some column could not be read")


def _without_nulls(value: Any) -> Any:
    """Drop null fields: a Parquet struct always has all fields, whereas a request leaves absent ones out.

    A struct whose fields are all null becomes `None`, and is left out itself. NaN counts as null: pandas writes it so.
    """
    match value:
        case float() if isnan(value):
            return None
        case dict():
            kept = {key: inner for key, field in value.items() if (inner := _without_nulls(field)) is not None}
            return kept if kept or not value else None
        case list():
            return [_without_nulls(inner) for inner in value]
    return value
