"""Reads the records of a shard from its file, in any format."""

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import orjson
import pyarrow as pa
import pyarrow.fs

from batch.errors import DamagedError, InputError
from batch.reading.exact import ExactRecord, loads, long_number_lines
from batch.reading.folders.partitions import Value
from batch.reading.formats.arrow_files import arrow_records
from batch.reading.formats.parquet import parquet_records
from batch.reading.invalid import InvalidRow, type_name
from batch.reading.shard import Shard
from batch.reading.sources import filesystem_of, input_errors, open_file

Record = dict[str, Any]


def shard_records(shard: Shard) -> Iterator[tuple[int, Record | InvalidRow]]:
    """Yield (line, record) for each row of the shard, in order; an InvalidRow in place of a record that is broken.

    Numbers keep all their digits (`batch.reading.exact`); NaN and infinities stay floats.

    Raises:
        InputError: the file cannot be read, or has changed since it was cut into shards. A change is noticed after the
            last row at the latest.
    """
    match shard.format:
        case "parquet":
            records = parquet_records(shard)
        case "jsonl":
            records = ((line, _parsed(raw, exactly)) for line, raw, exactly in _lines(shard))
        case "arrow":
            records = arrow_records(shard)
        case "csv":
            records = (_spooled(raw, exactly) for _, raw, exactly in _lines(shard))
    if shard.partition:
        records = _with_partition(records, shard.partition)
    read = 0
    _check_unchanged(shard)
    for read, record in enumerate(records, 1):
        yield record
        if read == shard.rows:
            _check_unchanged(shard)
            return
    raise _changed(shard, f", {read:,} rows where {shard.rows:,} were counted")


def _with_partition(
    records: Iterator[tuple[int, Record | InvalidRow]], partition: Sequence[tuple[str, Value]]
) -> Iterator[tuple[int, Record | InvalidRow]]:
    """Add the columns that the names of the file's folders give; a record's own column takes precedence."""
    for line, record in records:
        if isinstance(record, dict):
            for key, value in partition:
                record.setdefault(key, value)
        yield line, record


def _check_unchanged(shard: Shard) -> None:
    """Raise if the file has changed: rows of two versions of a file must not be mixed in one run."""
    if shard.mtime_ns is None:
        return
    with input_errors(shard.name):
        filesystem, path = filesystem_of(shard.location)
        now = filesystem.get_file_info(path)
        if now.type == pa.fs.FileType.NotFound:
            raise FileNotFoundError(shard.location)
    if now.mtime_ns != shard.mtime_ns or (shard.size is not None and now.size != shard.size):
        raise _changed(shard)


def _changed(shard: Shard, how: str = "") -> InputError | DamagedError:
    """The error for a file whose bytes are no longer those that were cut into shards."""
    if shard.spooled is not None:
        return DamagedError(f"{shard.location} is damaged{how}", path=shard.location)
    return InputError(
        f"{shard.name}: changed during the run{how}; put the file back as it was and rerun the same "
        "command to resume, or start again with --fresh"
    )


def _lines(shard: Shard) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (line number, bytes, may orjson change its numbers?) for each line that is not blank."""
    with input_errors(shard.name), open_file(shard.location) as file:
        data: bytes = file.read_at(shard.stop - shard.start, shard.start)
    if shard.crc is not None and crc32(data) != shard.crc:
        raise _changed(shard)
    long = long_number_lines(data)
    if not long:
        for line, raw in enumerate(data.split(b"\n"), shard.first_line):
            if raw and not raw.isspace():
                yield line, raw, False
        return
    start = 0
    for line, raw in enumerate(data.split(b"\n"), shard.first_line):
        if raw and not raw.isspace():
            yield line, raw, start in long
        start += len(raw) + 1


def _parsed(raw: bytes, exactly: bool) -> Record | InvalidRow:
    try:
        record = orjson.loads(raw)
        if exactly:
            record = loads(raw)
    except orjson.JSONDecodeError as error:
        return _perhaps_json(raw, error)
    except (ValueError, RecursionError):
        return InvalidRow("invalid_json", "nested too deeply")
    return _record(record)


def _record(value: Any) -> Record | InvalidRow:
    if isinstance(value, dict):
        return value
    return InvalidRow("wrong_type", f"a row must be a JSON object, not {type_name(value)}")


def _perhaps_json(raw: bytes, error: orjson.JSONDecodeError) -> Record | InvalidRow:
    """Parse a line that orjson refused: it holds NaN or a lone surrogate, or is not JSON at all."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as undecodable:
        return InvalidRow(
            "invalid_encoding", f"not UTF-8 at byte {undecodable.start + 1} of the line; save the file as UTF-8"
        )
    try:
        found = _record(loads(text))
    except (ValueError, RecursionError):
        what = f"{error.msg} (column {error.colno})"
        if raw.lstrip().startswith(b"{'"):
            what = "it looks like Python's notation of a dict; write the rows with json.dumps"
        elif raw.rstrip().endswith((b"},", b"} ,")):
            what = "a comma follows the object; delete it, since JSON Lines have none between rows"
        return InvalidRow("invalid_json", f"not JSON: {what}")
    return ExactRecord(found) if isinstance(found, dict) else found


def _spooled(raw: bytes, exactly: bool) -> tuple[int, Record | InvalidRow]:
    line, record, *fault = loads(raw) if exactly else orjson.loads(raw)
    return line, InvalidRow(*fault) if fault else record
