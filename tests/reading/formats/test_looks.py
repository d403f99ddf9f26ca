"""Recognising, by their first bytes, files that are not what their names say."""

import bz2
import gzip
import io
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.reading.formats.looks import looks_like


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), sink)
    return sink.getvalue()


def arrow_stream() -> bytes:
    sink = io.BytesIO()
    table = pa.table({"x": [1]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "sure"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "a Git LFS pointer", True),
        (gzip.compress(b'{"prompt":"a"}\n', mtime=0), "compressed with gzip", True),
        (parquet(), "Parquet", True),
        (arrow_stream(), "an Arrow stream", True),
        (bz2.compress(b'{"prompt":"a"}\n'), "compressed with bzip2", True),
        (pickle.dumps([{"prompt": "a"}]), "a Python pickle", True),
        ('{"prompt":"a"}\n'.encode("utf-16"), "UTF-16 text", True),
        ('{"prompt":"a"}\n'.encode("utf-32"), "UTF-32 text", True),
        ('{"prompt":"a"}\n'.encode("utf-16-le"), "UTF-16 text without a byte order mark", False),
        (b"\xef\xbb\xbf <!DOCTYPE html>\n<html>", "an HTML page", True),
        (b"<?xml version='1.0'?><Error/>", "XML", True),
        (b"PK\x03\x04rest", "a zip archive or an Excel workbook", True),
        (b'[{"prompt":"a"},{"prompt":"b"}]\n', "one JSON array", False),
        (b'[\n  {"prompt": "a"}\n]\n', "one JSON array", False),
        (b'[{"prompt":"a"},\n{"prompt":"b"}]', "one JSON array", False),
        (b'["a"]\n["b"]\n', "lines of JSON lists", False),
        (b'{\n  "prompt": "a"\n}\n', "pretty-printed JSON, an object over several lines", False),
    ],
)
def test_a_file_is_recognised_by_its_first_bytes(content: bytes, what: str, sure: bool) -> None:
    """Each kind of file other than JSON Lines is named; it is sure only if no line of data can look like it."""
    look = looks_like(content)
    assert look is not None
    assert (look.what, look.sure) == (what, sure)
    assert look.remedy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n\n",
        b'{"prompt":"a"}\n',
        b'\xef\xbb\xbf{"prompt":"a"}\n',
        b'{"prompt":"' + b"long " * 2000 + b'"}\n',
        b'{"prompt": broken}\n{"prompt":"a"}\n',
        b"id,question\n1,why?\n",
        b"ORC,question\n",
        b"BZh,question\n",
        '{"prompt":"caf\u00e9 \u65e5\u672c"}\n'.encode(),
    ],
)
def test_lines_and_tables_look_like_nothing_else(content: bytes) -> None:
    """JSON Lines and CSV, broken or long ones too, are not taken for another kind of file."""
    assert looks_like(content[:4096]) is None
