"""Files that are read whole, row by row."""

import csv
import gzip
import json
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest

from batch.errors import InputError
from batch.reading.rows import read_files, read_rows

ROWS = [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]


def write(path: Path) -> Path:
    """Write the rows in the format of the file's name."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if path.suffix == ".parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            made = csv.DictWriter(file, ["a", "b"])
            made.writeheader()
            made.writerows(ROWS)
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize(
    ("name", "first"), [("t.jsonl", 1), ("t.jsonl.gz", 1), ("t.parquet", 1), ("t.csv", 2)], ids=str
)
def test_every_format_gives_the_same_rows(name: str, first: int, tmp_path: Path) -> None:
    """In every format, rows come with the file's name and their line in it."""
    rows = list(read_rows(str(write(tmp_path / name)), "data.0.path", [("data.0.prompt", "a")]))
    assert [row.record for row in rows] == ROWS
    assert [row.where for row in rows] == [f"{name}:{first}", f"{name}:{first + 1}"]


def test_faults_name_the_key_of_the_job_file(tmp_path: Path) -> None:
    """A missing file, a missing column and a broken line are one line each, with the key that names the file."""
    path = write(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match=r"no\.jsonl: no such file; check data\.3\.path$"):
        list(read_rows(str(tmp_path / "no.jsonl"), "data.3.path", []))
    with pytest.raises(InputError, match=r"^data\.3\.prompt: no row has the column 'c'; the first row has: a, b$"):
        list(read_rows(str(path), "data.3.path", [("data.3.prompt", "c")]))
    path.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(InputError, match=r"^data\.3\.path: t\.jsonl:2: not JSON"):
        list(read_rows(str(path), "data.3.path", []))


def test_files_are_identified_by_content_and_not_by_place(tmp_path: Path) -> None:
    """The hash is that of the stored bytes, and the name has no folder of this machine."""
    path = write(tmp_path / "t.jsonl.gz")
    (found,) = read_files(str(path), "data.0.path")
    assert found.name == "t.jsonl.gz"
    assert found.sha256 == sha256(path.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size
