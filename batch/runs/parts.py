"""Scored and routed parts: Parquet files, one per shard, written whole or not at all, and checked before they are used.

The checksums of a part are stored in another file: those of a scored part in `scored/00012.json`, those of routed parts
in the shard's routing record. The pages of a part have checksums too, which are verified whenever a page is read. So
the few columns that a sitting needs when it starts can be checked without reading the others.
`batch.runs.schemas` has the columns.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from batch.errors import DamagedError
from batch.reading.columns import ROW
from batch.runs.layout import Layout
from batch.storage.atomic import replacing, storage_error
from batch.storage.checksums import CheckedWriter, Checksum, matches
from batch.storage.sealed import read_sealed, write_sealed

# Measured on prose: lz4 writes 1.2 times and reads 1.5 times as fast as zstd, and takes 1.5 times the bytes.
COMPRESSION = "lz4"

# A reader holds one row group in memory: few enough bytes for any number of lanes, enough rows to compress well.
_GROUP_BYTES = 8 << 20
_GROUP_ROWS = 8192

# The length of Parquet's footer, and its magic number.
_TAIL_BYTES = 8


def write_part(path: Path, table: pa.Table) -> Checksum:
    """Write a scored or routed part, atomically, and return its checksum. Raises StorageError."""
    with replacing(path) as temp:
        return _write(temp, table)


def write_scored(layout: Layout, shard: int, table: pa.Table) -> None:
    """Write the scored part of `shard` and the record of its checksums. Raises StorageError."""
    path, record = layout.scored(shard), layout.scored_record(shard)
    with replacing(path) as temp:
        checksum = _write(temp, table)
        sums = {"size": checksum.size, "content": checksum.crc, "footer": _footer_crc(temp)}
        # Before the part gets its name, so that a part that exists always has its record.
        write_sealed(record, layout.place(record), orjson.dumps(sums))


def check_scored(layout: Layout, shard: int, *, whole: bool = True) -> None:
    """Compare the scored part of `shard` with its checksums, if there are any: older versions wrote none.

    Args:
        layout: of the run.
        shard: its index.
        whole: read all of the part. Otherwise only its footer is checked, for callers that then read a few columns,
            whose pages are checked as they are read.

    Raises:
        DamagedError: it is not as it was written; it can be made again from the input.
        StorageError: the disk fails.
    """
    path, record = layout.scored(shard), layout.scored_record(shard)
    try:
        stored = read_sealed(record, layout.place(record))
        sums = None if stored is None else orjson.loads(stored)
        same = sums is None or (
            matches(path, Checksum(sums["size"], sums["content"])) if whole else _footer_crc(path) == sums["footer"]
        )
    except (DamagedError, ValueError, KeyError, TypeError, AttributeError):
        # A part whose checksums are damaged cannot be trusted either.
        same = False
    if not same:
        raise _damaged(path, "it is not as it was written")


def read_scored(layout: Layout, shard: int, columns: Collection[str], *, whole: bool = True) -> pa.Table:
    """Check the scored part of `shard` and return these columns of it. Raises what `check_scored` raises."""
    check_scored(layout, shard, whole=whole)
    return read_part(layout.scored(shard), columns)


def check_part(path: Path, expected: Checksum) -> None:
    """Compare all of a part with its checksum. Raises DamagedError if they differ, StorageError if the disk fails."""
    if not matches(path, expected):
        raise _damaged(path, "it is not as it was written")


def read_part(path: Path, columns: Collection[str] | None = None) -> pa.Table:
    """A whole part, or these columns of it; columns the part lacks are left out.

    Raises:
        DamagedError: it is not there or damaged.
        StorageError: the disk fails.
    """
    with _reading(path) as file:
        return file.read(_present(file, columns), use_threads=False)


def iter_part(
    path: Path, batch_rows: int = _GROUP_ROWS, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The part in batches of at most `batch_rows` rows, in order; one row group is in memory at a time.

    Raises:
        DamagedError: it is not there or damaged.
        StorageError: the disk fails.
    """
    with _reading(path) as file:
        present = _present(file, columns)
        # One group at a time: a batch over several could hold 512 prompts of 10 MB, whose groups have one row each.
        for group in range(file.num_row_groups):
            yield from file.iter_batches(batch_rows, row_groups=[group], columns=present, use_threads=False)


def iter_routed(path: Path, batch_rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """The requests of a routed part, in row order; none if the part does not exist: no row of the shard goes there."""
    if path.exists():
        yield from iter_part(path, batch_rows)


def routed_rows(path: Path) -> list[int]:
    """Row numbers of a routed part; none if the part does not exist."""
    if not path.exists():
        return []
    rows: list[int] = read_part(path, [ROW])[ROW].to_pylist()
    return rows


def _write(path: Path, table: pa.Table) -> Checksum:
    with CheckedWriter(path) as file:
        pq.write_table(
            table, file, compression=COMPRESSION, row_group_size=_group_rows(table), write_page_checksum=True
        )
        return file.checksum


def _footer_crc(path: Path) -> int | None:
    """CRC-32 of the footer, which says where all columns are; `None` if the file is missing or is not Parquet."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - _TAIL_BYTES))
            length = int.from_bytes(file.read(4), "little") + _TAIL_BYTES
            if length > end:
                return None
            file.seek(end - length)
            return crc32(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error, "read") from error


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            yield file
    except FileNotFoundError as error:
        raise _damaged(path, "it is gone") from error
    except (OSError, pa.ArrowException, ValueError, KeyError, MemoryError) as error:
        # Arrow's own errors have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise storage_error(path, error, "read") from error
        # Arrow's messages run over several lines.
        raise _damaged(path, " ".join(str(error).split()).rstrip(".")) from error


def _damaged(path: Path, why: str) -> DamagedError:
    return DamagedError(f"cannot read {path}: {why}; rerun the same command to make it again", path=str(path))


def _present(file: pq.ParquetFile, columns: Collection[str] | None) -> list[str] | None:
    if columns is None:
        return None
    there = set(file.schema_arrow.names)
    return [name for name in columns if name in there]


def _group_rows(table: pa.Table) -> int:
    per_row: int = table.nbytes // max(table.num_rows, 1)
    return max(1, min(_GROUP_ROWS, _GROUP_BYTES // max(per_row, 1)))
