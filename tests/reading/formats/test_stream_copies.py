"""Standard input and named pipes are read once, and their rows are kept for the next sitting."""

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import InputError
from batch.reading.read import read_shard
from batch.reading.shard import Shard, from_stored, to_stored
from batch.reading.shards import check_streams, find_shards, refill_spool
from batch.reading.sources import find_sources, fingerprint_sources
from schemas.job import CsvSpec, InputSpec
from tests.reading.rows import count_words

LINES = b'{"prompt":"a"}\n{"prompt":"b"}\n'


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@contextmanager
def piped(path: Path, content: bytes) -> Iterator[None]:
    """While the block runs, a thread writes this content to the pipe."""
    writer = Thread(target=path.write_bytes, args=(content,))
    writer.start()
    yield
    writer.join()


def texts(shards: list[Shard], spec: InputSpec) -> list[Any]:
    return [text for shard in shards for text in read_shard(shard, spec, count_words)["text"].to_pylist()]


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["a", "b"]}), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        gzip.compress(LINES, mtime=0),
        b'[{"prompt":"a"},{"prompt":"b"}]',
        b"prompt;n\na;1\nb;2\n",
        b"BZh,prompt\n1,a\n2,b\n",
        "prompt,n\na,1\nb,2\n".encode("utf-16"),
        parquet(),
    ],
)
def test_a_pipe_is_read_once_and_the_run_resumes_without_it(tmp_path: Path, pipe: Path, content: bytes) -> None:
    """Rows of any format are copied; later sittings read the copy, also after the run directory was moved."""
    spec = InputSpec(path=str(pipe))
    fingerprint = fingerprint_sources(find_sources(spec))
    with piped(pipe, content):
        shards = find_shards(spec, tmp_path / "spool")
    assert texts(shards, spec) == ["a", "b"]
    stored = [to_stored(shard) for shard in shards]
    (tmp_path / "spool").rename(tmp_path / "moved")
    again = from_stored(stored, find_sources(spec), tmp_path / "moved")
    refill_spool(spec, tmp_path / "moved", again, find_sources(spec))
    assert texts(again, spec) == ["a", "b"]
    assert fingerprint_sources(find_sources(spec)) == fingerprint


def test_rows_piped_into_a_resumed_run_must_be_the_same(tmp_path: Path, pipe: Path) -> None:
    """The same rows are accepted; other rows are refused before anything is sent."""
    spec = InputSpec(path=str(pipe))
    with piped(pipe, LINES):
        shards = find_shards(spec, tmp_path / "spool")
    with piped(pipe, LINES):
        refill_spool(spec, tmp_path / "spool", shards, find_sources(spec))
    with (
        piped(pipe, LINES.replace(b"b", b"c")),
        pytest.raises(InputError, match="differs from what this run began with"),
    ):
        refill_spool(spec, tmp_path / "spool", shards, find_sources(spec))
    with piped(pipe, LINES + LINES), pytest.raises(InputError, match="differs from what this run began"):
        check_streams(find_sources(spec), tmp_path / "spool")
    check_streams(find_sources(spec), tmp_path / "other")
    assert texts(shards, spec) == ["a", "b"]


@pytest.mark.parametrize("first", [b"prompt\na\nb\n", b'{"prompt":"a"}\n'])
def test_before_any_shard_is_stored_the_newest_rows_count(tmp_path: Path, pipe: Path, first: bytes) -> None:
    """A sitting that ended while it read its input leaves no rows that could mix with others of the same length."""
    spec = InputSpec(path=str(pipe), csv=CsvSpec(delimiter=","))
    with piped(pipe, first):
        find_shards(spec, tmp_path / "spool")
    with piped(pipe, first.replace(b"a", b"x")):
        assert texts(find_shards(spec, tmp_path / "spool"), spec)[0] == "x"


def test_nothing_piped_in_is_refused(tmp_path: Path, pipe: Path) -> None:
    """An empty pipe is refused, and leaves no copy behind that a later sitting would read as rows."""
    spec = InputSpec(path=str(pipe))
    with piped(pipe, b""), pytest.raises(InputError, match="nothing was piped in"):
        find_shards(spec, tmp_path / "spool")
    with piped(pipe, LINES):
        assert texts(find_shards(spec, tmp_path / "spool"), spec) == ["a", "b"]
    with pytest.raises(InputError, match="nothing was piped in"):
        find_shards(InputSpec(path="/dev/null"), tmp_path / "spool")


@pytest.mark.real
def test_standard_input_is_read_by_its_number(tmp_path: Path) -> None:
    """A pipe with rows, then an empty one, then a file with the same rows: each time the first pipe's rows are read."""
    code = (
        "import sys; from pathlib import Path; from batch.reading.shards import find_shards; "
        "from schemas.job import InputSpec; "
        "print(sum(s.rows for s in find_shards(InputSpec(path='/dev/stdin'), Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "spool")]
    (tmp_path / "rows").write_bytes(LINES)
    assert subprocess.run(command, input=LINES, capture_output=True, check=True).stdout == b"2\n"
    assert subprocess.run(command, input=b"", capture_output=True, check=True).stdout == b"2\n"
    with (tmp_path / "rows").open("rb") as file:
        assert subprocess.run(command, stdin=file, capture_output=True, check=True).stdout == b"2\n"
