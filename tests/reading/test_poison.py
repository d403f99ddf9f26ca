"""Inputs of extreme size: very long rows and names."""

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.job import InputSpec
from tests.reading.rows import read_all

ROWS, ROW_BYTES = 200, 1_000_000

# Arrow's memory is measured in a separate process that does nothing else.
READER = """
import sys
from pathlib import Path
import pyarrow as pa
from batch.reading.records import shard_records
from batch.reading.shards import find_shards
from schemas.job import InputSpec
shards = find_shards(InputSpec(path=sys.argv[1]), Path(sys.argv[1]).parent)
rows = sum(len(record["prompt"]) == int(sys.argv[2]) for _, record in shard_records(shards[-1]))
print(len(shards), rows, pa.default_memory_pool().max_memory())
"""


@pytest.mark.real
def test_a_row_group_of_long_rows_is_read_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """The last shard reads its rows of a 200 MB row group, and the process never holds a third of the group."""
    table = pa.table({"prompt": pa.array(f"{row:06}".ljust(ROW_BYTES, "w") for row in range(ROWS))})
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path, use_dictionary=False, compression="none", write_batch_size=4)
    said = subprocess.check_output([sys.executable, "-c", READER, str(path), str(ROW_BYTES)], text=True)
    shards, rows, held = map(int, said.split())
    assert shards > 1
    assert 0 < rows < ROWS / 2
    assert held < ROWS * ROW_BYTES / 3


def test_a_file_may_have_the_longest_name_there_is(tmp_path: Path) -> None:
    """A compressed file whose name fills its 255 bytes is spooled and read like any other."""
    path = tmp_path / f"{'é' * 123}.jsonl.gz"
    assert 250 < len(path.name.encode()) <= 255
    path.write_bytes(gzip.compress(b'{"prompt":"a"}\n', mtime=0))
    (row,) = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert (row["text"], row["id"]) == ("a", f"{path.name}:1")
