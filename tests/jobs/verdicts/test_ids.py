"""Ids over the whole input: which repeat, which are made up, and which commands report it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.reading import shards
from jobs.commands.check import check_job
from jobs.commands.estimate import estimate_job
from jobs.stopped import StoppedError
from tests.job_folder import ENDPOINTS, JobFolder, interrupt_after
from tests.rehearsed import Served, serve

SLOW = tuple({**endpoint, "latency": {"median_seconds": 0.05}} for endpoint in ENDPOINTS)
FLOWS = {"strategy": "cutoff", "cutoff": 0.5}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve(*ENDPOINTS) as endpoints:
        yield endpoints


@pytest.fixture
def there(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    """A folder whose input is cut into shards of a few rows."""
    monkeypatch.setattr(shards, "MIN_SHARD_BYTES", 100)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 200)
    served.forget()
    return JobFolder(tmp_path, served)


def rows_of(there: JobFolder, **settings: Any) -> list[dict[str, Any]]:
    """The results of a run whose input has these settings."""
    there.run(there.job(input={"path": str(there.folder / "prompts.jsonl"), **settings}, plan=FLOWS))
    return there.results()


def notes_on_ids(notes: tuple[str, ...] | list[str]) -> list[str]:
    return [note for note in notes if "ids repeat" in note]


@pytest.mark.parametrize("plan", [FLOWS, {"strategy": "share", "strong": 0.5}])
def test_a_default_id_column_with_a_repeat_is_data(there: JobFolder, plan: dict[str, Any]) -> None:
    """After one repeat in the last shard, every row has a made-up id and carries its column; one note says so."""
    there.write({"id": min(i, 38), "prompt": f"p{i}"} for i in range(40))
    job = there.job(plan=plan)
    estimate, found, report = estimate_job(job), check_job(job), there.run(job)
    rows = there.results()
    assert [row["status"] for row in rows] == ["ok"] * 40
    assert [row["id"] for row in rows] == [f"prompts.jsonl:{i + 1}" for i in range(40)]
    assert [row["content"] for row in rows] == [f"p{i}" for i in range(40)]
    assert len(there.served.posts) == 40
    assert (estimate.rows.ok, found.invalid, report.rows.ok) == (40, 0, 40)
    (note,) = notes_on_ids(report.notes)
    assert notes_on_ids(found.notes) == notes_on_ids(estimate.notes) == [note]
    assert "column `id` (prompts.jsonl:40 has the id of prompts.jsonl:39)" in note
    assert "(1 row, prompts.jsonl:40)" in note
    again = there.run(job)
    assert notes_on_ids(again.notes) == [note]
    assert len(there.served.posts) == 40


def test_the_column_is_carried_as_it_was(there: JobFolder) -> None:
    """Numbers stay numbers and strings stay strings, before the other columns; rows without an id have none."""
    there.write(
        [
            {"id": 7, "prompt": "a", "x": 12345678901234567890},
            {"id": 10**30, "prompt": "big", "x": 10**40},
            {"id": "7", "prompt": "b"},
            {"prompt": "c"},
            {"custom_id": "u", "id": 1.0, "prompt": "d"},
        ]
    )
    rows = rows_of(there)
    assert [row["id"] for row in rows] == [f"prompts.jsonl:{i + 1}" for i in range(5)]
    own = [{key: row[key] for key in ("input_id", "custom_id", "x") if key in row} for row in rows]
    assert own == [
        {"input_id": 7, "x": 12345678901234567890},
        {"input_id": 10**30, "x": 10**40},
        {"input_id": "7"},
        {},
        {"input_id": 1, "custom_id": "u"},
    ]


def test_ids_that_differ_stay_ids(there: JobFolder) -> None:
    """Without a repeat, ids are kept; 1.0, as pandas writes it, is the number 1."""
    there.write([{"id": 1.0, "prompt": "a"}, {"id": 2.0, "prompt": "b"}, {"id": None, "prompt": "c"}])
    rows = rows_of(there)
    assert [row["id"] for row in rows] == ["1", "2", "prompts.jsonl:3"]


def test_a_run_that_stops_before_the_repeat_is_known_ends_like_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shards that were committed with their own ids are committed again with made-up ones; nothing is sent twice."""
    monkeypatch.setattr(shards, "MIN_SHARD_BYTES", 100)
    monkeypatch.setattr(shards, "MAX_SHARD_BYTES", 200)
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write({"id": f"r{min(i, 98)}", "prompt": f"p{i}"} for i in range(100))
        models = there.job().model_dump(mode="json")["models"]
        for model in models:
            for endpoint in model["endpoints"]:
                endpoint["limits"] = {"max_in_flight": 4}
        job = there.job(models=models, plan=FLOWS)
        with pytest.raises(StoppedError):
            there.run(job, progress=interrupt_after(20))
        report = there.run(job)
        rows = there.results()
        assert [row["id"] for row in rows] == [f"prompts.jsonl:{i + 1}" for i in range(100)]
        assert set(served.prompts().values()) == {1}
        assert len(notes_on_ids(report.notes)) == 1


def test_ids_of_a_named_column_must_differ(there: JobFolder) -> None:
    """The message names column, both places and remedy, and is the same in `check`, `estimate` and the results."""
    there.write({"key": f"k{i % 38}", "prompt": f"p{i}"} for i in range(40))
    job = there.job(input={"path": str(there.folder / "prompts.jsonl"), "id_column": "key"}, plan=FLOWS)
    found, estimate, report = check_job(job), estimate_job(job), there.run(job)
    messages = [row["error"]["message"] for row in there.results() if row["status"] == "invalid"]
    assert list(found.faults) == list(estimate.faults) == messages
    assert (found.invalid, estimate.rows.invalid, report.rows.invalid) == (2, 2, 2)
    assert messages[0].startswith("prompts.jsonl:39: key repeats that of prompts.jsonl:1; ")
    assert "input.id_column: none" in messages[0]


def test_ids_may_come_from_no_column(there: JobFolder) -> None:
    """With `id_column: none` all ids are made up and every column is carried, also `custom_id` of a batch line."""
    body = {"messages": [{"role": "user", "content": "b"}]}
    there.write(
        [
            {"id": "x", "prompt": "a"},
            {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
        ]
    )
    rows = rows_of(there, id_column="none")
    assert [row["id"] for row in rows] == ["prompts.jsonl:1", "prompts.jsonl:2"]
    assert rows[1]["custom_id"] == "c"


@pytest.mark.parametrize("column", [None, "id"])
def test_ids_may_differ_within_each_file_only(there: JobFolder, column: str | None) -> None:
    """Ids of part files that each count from task-0 become `<file>:<id>`."""
    for name in ("a.jsonl", "b.jsonl"):
        there.write(({"id": f"task-{i}", "prompt": f"{name} {i}"} for i in range(2)), name)
    settings: dict[str, Any] = {"path": str(there.folder / "?.jsonl"), "id_scope": "file", "id_column": column}
    there.run(there.job(input=settings, plan=FLOWS))
    assert [row["id"] for row in there.results()] == [
        "a.jsonl:task-0",
        "a.jsonl:task-1",
        "b.jsonl:task-0",
        "b.jsonl:task-1",
    ]


def test_custom_ids_of_batch_lines_stay_strict(there: JobFolder) -> None:
    """As with OpenAI, a batch line with a repeated `custom_id` is invalid; repeats in other rows are not."""
    body = {"messages": [{"role": "user", "content": "b"}]}
    line = {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body}
    there.write([{"custom_id": "c", "prompt": "first"}, line, line, {"id": "z", "prompt": "last"}])
    rows = rows_of(there)
    assert [row["status"] for row in rows] == ["ok", "ok", "invalid", "ok"]
    assert "custom_id repeats that of prompts.jsonl:2;" in rows[2]["error"]["message"]
    assert [row["id"] for row in rows] == ["prompts.jsonl:1", "c", "c", "prompts.jsonl:4"]


def test_made_up_ids_reach_parquet_too(there: JobFolder) -> None:
    """The carried column is in the Parquet results, with the made-up ids."""
    import pyarrow.parquet as pq

    there.write({"id": i // 2, "prompt": f"p{i}"} for i in range(6))
    output = {"path": str(there.folder / "results.parquet"), "format": "parquet"}
    there.run(there.job(output=output, plan=FLOWS))
    table = pq.read_table(there.folder / "results.parquet")
    assert table["id"].to_pylist() == [f"prompts.jsonl:{i + 1}" for i in range(6)]
    assert table["input_id"].to_pylist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("column", ["id", "custom_id"])
@pytest.mark.parametrize("beside", ["1", "0.12345678901234567891", "NaN", None])
def test_ids_that_repeat_are_carried_with_all_their_digits(there: JobFolder, column: str, beside: str | None) -> None:
    """They are carried like any other column: numbers beyond 64 bits keep their digits, and so do other columns."""
    more = "" if beside is None else f', "x": {beside}'
    ids = ["123456789012345678901", "123456789012345678901", "-9223372036854775809", "7"]
    lines = [f'{{"{column}": {one}, "prompt": "p{i}"{more}}}\n' for i, one in enumerate(ids)]
    (there.folder / "prompts.jsonl").write_text("".join(lines))
    there.run(there.job(plan=FLOWS))
    name = "input_id" if column == "id" else column
    kept = (there.folder / "results.jsonl").read_text().splitlines()
    assert all(f'"{name}":{one}' in line.replace(": ", ":") for one, line in zip(ids, kept, strict=True))
    if beside is not None:
        shown = '"NaN"' if beside == "NaN" else beside
        assert all(f'"x":{shown}' in line.replace(": ", ":") for line in kept)
