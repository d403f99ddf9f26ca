"""Writing the output to this machine."""

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.errors import SpecError, StorageError
from batch.outcomes import RowOutcome
from batch.runs.layout import Layout
from batch.runs.output import parquet as parquet_results
from batch.runs.output.local import check_output_writable, write_local_output
from schemas.job import OutputSpec
from schemas.openai_batch import BatchResultLine
from schemas.results import ErrorInfo, ResultRow
from tests.runs.journals import OpenJournal, answered, given_up
from tests.runs.shards import bad, commit, row, write_shard

Format = Literal["jsonl", "parquet", "openai_batch"]
FIELDS = list(ResultRow.model_fields)


def run(tmp_path: Path, output: OutputSpec, carried: list[dict[str, Any]] | None = None) -> Layout:
    """Two committed shards of three rows: answered, failed with a status, invalid."""
    layout = Layout(tmp_path / "run")
    for shard in (0, 1):
        numbers = [3 * shard + n for n in range(3)]
        carry = [json.dumps(carried[n]).encode() if carried else None for n in numbers]
        rows = [row(n, carry=c) for n, c in zip(numbers[:2], carry[:2], strict=True)]
        write_shard(layout, [*rows, bad(numbers[2], carry=carry[2])], {"weak": numbers[:2]}, shard=shard)
        with OpenJournal(layout.journal(shard, "weak")) as journal:
            given_up(journal, numbers[1])
            answered(journal, numbers[0])
        commit(layout, output, shard=shard)
    return layout


def test_a_file_is_all_parts_in_one(tmp_path: Path) -> None:
    """A file has all shards in order; an older file stays until the new one is whole; writing again changes no byte."""
    output = OutputSpec(path=str(tmp_path / "out" / "results.jsonl"))
    layout = run(tmp_path, output)
    path = Path(output.path)
    assert write_local_output(layout, [0, 1], output) == [path]
    first = path.read_bytes()
    assert [orjson.loads(line)["row"] for line in first.splitlines()] == list(range(6))
    (path.parent / ".results.jsonl.killed.tmp").write_bytes(b"half")
    assert write_local_output(layout, [0, 1], output) == [path]
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["results.jsonl"]


def test_results_go_where_a_link_leads(tmp_path: Path) -> None:
    """If the output is a symbolic link, even to a missing file, the file behind it is replaced and the link stays."""
    (tmp_path / "large").mkdir()
    link = tmp_path / "results.jsonl"
    link.symlink_to(Path("large") / "disk.jsonl")
    output = OutputSpec(path=str(link))
    layout = run(tmp_path, output)
    for _ in range(2):
        check_output_writable(output)
        assert write_local_output(layout, [0, 1], output) == [link]
        assert link.is_symlink()
        assert len((tmp_path / "large" / "disk.jsonl").read_bytes().splitlines()) == 6
    assert [p.name for p in (tmp_path / "large").iterdir()] == ["disk.jsonl"]


@pytest.mark.parametrize("format_", ["jsonl", "parquet"])
def test_a_folder_gets_the_parts(tmp_path: Path, format_: Format) -> None:
    """A folder gets one file per shard; parts of an earlier, longer run are removed, and the user's own files stay."""
    output = OutputSpec(path=f"{tmp_path}/out/", format=format_)
    layout = run(tmp_path, output)
    (tmp_path / "out").mkdir()
    for name in (f"part-00007.{format_}", "notes.txt", "part-list.jsonl"):
        (tmp_path / "out" / name).touch()
    written = write_local_output(layout, [0, 1], output)
    assert [p.name for p in written] == [f"part-00000.{format_}", f"part-00001.{format_}"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        ["notes.txt", "part-list.jsonl", *(p.name for p in written)]
    )


def test_an_unfinished_shard_stops_the_output(tmp_path: Path) -> None:
    """A missing part is an error: the output is not written without it."""
    output = OutputSpec(path=str(tmp_path / "results.jsonl"))
    layout = run(tmp_path, output)
    with pytest.raises(StorageError, match=r"committed/00002.json: it is gone"):
        write_local_output(layout, [0, 1, 2], output)
    assert not Path(output.path).exists()


def test_parquet_holds_what_json_lines_hold(tmp_path: Path) -> None:
    """Parquet and JSON Lines hold the same values; dollars are exact decimals, and the response is JSON text."""
    lines = OutputSpec(path=str(tmp_path / "a" / "results.jsonl"))
    table = OutputSpec(path=str(tmp_path / "b" / "results.parquet"), format="parquet")
    carried = [{"topic": f"t{n}", "level": n} for n in range(6)]
    write_local_output(run(tmp_path / "a", lines, carried), [0, 1], lines)
    write_local_output(run(tmp_path / "b", table, carried), [0, 1], table)
    expected = [orjson.loads(line) for line in Path(lines.path).read_bytes().splitlines()]
    found = pq.read_table(table.path)
    assert found.column_names == [*FIELDS, "topic", "level"]
    assert found.schema.field("level").type == pa.int64()
    for given, line in zip(found.to_pylist(), expected, strict=True):
        given["response"] = given["response"] and orjson.loads(given["response"])
        if given["cost_usd"] is not None:
            assert given["cost_usd"] == Decimal("0.000009")
            given["cost_usd"] = float(given["cost_usd"])
        assert given == line


CARRIED: list[dict[str, Any]] = [
    {"whole": 1, "number": 1, "flag": True, "text": "a", "mixed": 1, "nested": {"a": 1}, "id": "theirs", "big": 2**60},
    {"whole": None, "number": 0.5, "flag": False, "text": "b", "mixed": "1", "nested": [1]},
    {"whole": 3, "number": 2, "late": "only here", "none": None, "huge": 2**70, "big": 0.5},
    {"whole": 2**62},
    {},
    {"text": None, "id": None},
]


@pytest.mark.parametrize("folder", [False, True])
def test_carried_columns_have_one_schema_for_all_parts(tmp_path: Path, folder: bool) -> None:
    """A carried column is bool, int64, double or string if all its values are; else it holds the JSON of each."""
    path = tmp_path / ("out/" if folder else "out.parquet")
    output = OutputSpec(path=str(path) + ("/" if folder else ""), format="parquet")
    written = write_local_output(run(tmp_path, output, CARRIED), [0, 1], output)
    tables = [pq.read_table(p) for p in written]
    assert len({str(t.schema) for t in tables}) == 1
    found = pa.concat_tables(tables)
    types = {name: str(found.schema.field(name).type) for name in found.column_names[len(FIELDS) :]}
    assert types == {
        "whole": "int64",
        "number": "double",
        "flag": "bool",
        "text": "string",
        "mixed": "string",
        "nested": "string",
        "input_id": "string",
        "big": "string",
        "late": "string",
        "none": "string",
        "huge": "double",
    }
    rows = found.to_pylist()
    assert [r["whole"] for r in rows] == [1, None, 3, 2**62, None, None]
    assert [r["number"] for r in rows] == [1.0, 0.5, 2.0, None, None, None]
    assert [r["mixed"] for r in rows[:3]] == ["1", '"1"', None]
    assert [r["nested"] for r in rows[:2]] == ['{"a":1}', "[1]"]
    assert [r["big"] for r in rows[:3]] == [str(2**60), None, "0.5"]
    assert [r["id"] for r in rows] == [f"id-{n}" for n in range(6)]


def test_keys_that_are_data_stay_one_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the rows' keys are all different, they go into one column instead of a table with thousands of columns."""
    monkeypatch.setattr(parquet_results, "MOST_COLUMNS", 5)
    output = OutputSpec(path=str(tmp_path / "out.parquet"), format="parquet")
    write_local_output(run(tmp_path, output, [{f"key-{n}": n} for n in range(6)]), [0, 1], output)
    found = pq.read_table(output.path)
    assert found.column_names == [*FIELDS, "carry"]
    assert found["carry"].to_pylist() == [f'{{"key-{n}": {n}}}' for n in range(6)]


def test_openai_batch_files_have_openais_shape(tmp_path: Path) -> None:
    """Answers go to the output file, failures to the error file, in input order, in exactly OpenAI's fields."""
    output = OutputSpec(path=str(tmp_path / "results.jsonl"), format="openai_batch")
    written = write_local_output(run(tmp_path, output), [0, 1], output)
    assert [p.name for p in written] == ["results.jsonl", "results.errors.jsonl"]
    good, bad_ = ([orjson.loads(line) for line in p.read_bytes().splitlines()] for p in written)
    for line in good + bad_:
        BatchResultLine.model_validate(line)
    assert [line["custom_id"] for line in good] == ["id-0", "id-3"]
    assert good[0]["error"] is None
    assert good[0]["response"]["status_code"] == 200
    assert good[0]["response"]["request_id"] == "c1"
    assert good[0]["response"]["body"]["choices"][0]["message"]["content"] == "yes"
    assert [line["custom_id"] for line in bad_] == ["id-1", "id-2", "id-4", "id-5"]
    refused, invalid = bad_[:2]
    assert refused["error"] is None
    assert refused["response"]["status_code"] == 400
    assert refused["response"]["body"]["error"]["code"] == "bad_request"
    assert invalid["response"] is None
    assert invalid["error"] == {"code": "invalid_json", "message": "a.jsonl:2: broken"}
    assert len({line["id"] for line in good + bad_}) == 6


def test_a_failure_shows_the_providers_own_body(tmp_path: Path) -> None:
    """An error line holds the provider's error body; an answer that is not JSON is left out of it."""
    output = OutputSpec(path=str(tmp_path / "results.jsonl"), format="openai_batch")
    layout = Layout(tmp_path / "run")
    write_shard(layout, [row(0), row(1)], {"weak": [0, 1]})
    said = b'{"error":{"message":"too long","code":"context_length_exceeded"}}'
    with OpenJournal(layout.journal(0, "weak")) as journal:
        error = ErrorInfo(kind="bad_request", status=400, message="HTTP 400")
        journal.outcome(RowOutcome(0, status="failed", endpoint=0, attempts=1, latency=0.1, response=said, error=error))
        given_up(journal, 1, error=ErrorInfo(kind="bad_answer", status=200, message="not JSON"))
    commit(layout, output)
    lines = [orjson.loads(line) for line in write_local_output(layout, [0], output)[1].read_bytes().splitlines()]
    assert lines[0]["response"]["body"] == orjson.loads(said)
    assert lines[1]["response"] is None
    assert lines[1]["error"] == {"code": "bad_answer", "message": "not JSON"}


def test_an_error_file_is_there_only_for_errors(tmp_path: Path) -> None:
    """A run without failures has no error file, and removes that of the run before."""
    output = OutputSpec(path=str(tmp_path / "results.jsonl"), format="openai_batch")
    write_local_output(run(tmp_path, output), [0, 1], output)
    layout = Layout(tmp_path / "other")
    write_shard(layout, [row(0)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0)
    commit(layout, output)
    assert [p.name for p in write_local_output(layout, [0], output)] == ["results.jsonl"]
    assert not (tmp_path / "results.errors.jsonl").exists()


def test_a_writable_output_is_left_untouched(tmp_path: Path) -> None:
    """Checking whether the output can be written makes no file and no folder."""
    (tmp_path / "there.jsonl").write_text("old")
    for path in ("there.jsonl", "new.jsonl", "a/b/new.jsonl", "a/b/"):
        check_output_writable(OutputSpec(path=f"{tmp_path}/{path}"))
    assert [p.name for p in tmp_path.iterdir()] == ["there.jsonl"]
    assert (tmp_path / "there.jsonl").read_text() == "old"


def test_an_output_that_cannot_be_written_is_found_before_sending(tmp_path: Path) -> None:
    """A file used as a folder, a run directory, a device, a read-only system and the like are refused in one line."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    for path, message in {
        f"{tmp_path}/file/results.jsonl": "cannot be written",
        f"{tmp_path}/file/": "asks for a folder",
        f"{tmp_path}/run": "is a run directory",
        "/proc/results.jsonl": "cannot be written",
        "ftp://host/results.jsonl": "Unrecognized filesystem type",
        f"{tmp_path}/pipe": "is a device or a pipe",
        "/dev/null": "is a device or a pipe",
        f"{tmp_path}/{'x' * 300}": "name too long",
        f"{tmp_path}/{'x' * 254}": "run directory .* name too long",
    }.items():
        with pytest.raises(SpecError, match=message) as caught:
            check_output_writable(OutputSpec(path=path))
        assert "output." in str(caught.value)
        assert "\n" not in str(caught.value)
