"""Reads Arrow files and streams (.arrow, .feather), as Hugging Face's datasets, Polars and pandas write them."""

from collections.abc import Iterator, KeysView
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from batch.reading.formats.parquet import BATCH_ROWS, batch_records
from batch.reading.invalid import InvalidRow
from batch.reading.shard import Shard
from batch.reading.sources import input_errors, is_local, local_path, open_file

_FILE_MAGIC = b"ARROW1"


def arrow_columns(shard: Shard) -> KeysView[str]:
    """Return the names of the file's columns, in the file's order."""
    with input_errors(shard.name), _opened(shard.location) as file:
        return dict.fromkeys(_reader(file).schema.names).keys()


def arrow_layout(location: str) -> tuple[list[str], list[int]]:
    """Return the names of the columns, and the number of rows of each record batch. Raises PyArrow's errors."""
    with _opened(location) as file:
        names = _reader(file).schema.names
    with _opened(location) as file:
        # In compressed batches, only the columns listed here are decompressed.
        options = pa.ipc.IpcReadOptions(included_fields=[0], use_threads=False)
        return names, [batch.num_rows for batch in _batches(file, options)]


def arrow_records(shard: Shard) -> Iterator[tuple[int, dict[str, Any] | InvalidRow]]:
    """Yield (row number from 1, record) for the rows `start` to `stop`, with values as `plain_values` returns them.

    A local file is mapped into memory, so that skipping the batches before the shard costs next to nothing.
    """
    line = shard.start + 1
    with input_errors(shard.name), _opened(shard.location) as file:
        first = 0
        for batch in _batches(file, pa.ipc.IpcReadOptions(use_threads=False)):
            start, stop = max(shard.start - first, 0), min(shard.stop - first, batch.num_rows)
            first += batch.num_rows
            for at in range(start, stop, BATCH_ROWS):
                for record in batch_records(batch.slice(at, min(BATCH_ROWS, stop - at))):
                    yield line, record
                    line += 1
            if first >= shard.stop:
                return


@contextmanager
def _opened(location: str) -> Iterator[Any]:
    with pa.memory_map(local_path(location)) if is_local(location) else open_file(location) as file:
        yield file


def _reader(file: Any, options: Any = None) -> Any:
    is_file = file.read_at(len(_FILE_MAGIC), 0) == _FILE_MAGIC
    return pa.ipc.open_file(file, options=options) if is_file else pa.ipc.open_stream(file, options=options)


def _batches(file: Any, options: Any) -> Iterator[Any]:
    reader = _reader(file, options)
    if isinstance(reader, pa.RecordBatchFileReader):
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
    else:
        yield from reader
