"""`check`, `estimate` and `run` judge every row and file alike, because they use the same code."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.commands.check import check_job
from jobs.commands.estimate import estimate_job
from tests.job_folder import ENDPOINTS, JobFolder
from tests.jobs.console_script import Command, Job, written
from tests.rehearsed import Served, serve

USER = {"role": "user", "content": "hi"}
GOOD = {"prompt": "good"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve(*ENDPOINTS) as endpoints:
        yield endpoints


@pytest.fixture
def there(served: Served, tmp_path: Path) -> JobFolder:
    served.forget()
    return JobFolder(tmp_path, served)


def batch_line(custom_id: Any, **body: Any) -> dict[str, Any]:
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"messages": [USER], **body},
    }


ROWS: dict[str, list[Any]] = {
    "asked ids that repeat": [{"key": "a", **GOOD}, {"key": "a", **GOOD}, {"key": "b", **GOOD}, {"key": "a", **GOOD}],
    "asked ids that are none": [{"key": 1.5, **GOOD}, {"key": 1.0, **GOOD}, {"key": True, **GOOD}, GOOD],
    "custom ids that repeat": [batch_line("a"), batch_line("a"), batch_line(5), batch_line("b")],
    "models that are not there": [{"model": "gpt-9", **GOOD}, {"model": "small", **GOOD}, {"model": 5, **GOOD}],
    "values out of range": [
        {"max_tokens": 0, **GOOD},
        {"max_tokens": 10**12, **GOOD},
        {"temperature": "hot", **GOOD},
        {"params": {"n": -1}, **GOOD},
        GOOD,
    ],
    "broken lines": ["{", '{"prompt": ', "[1]", "5", json.dumps(GOOD), '{"prompt": "\\ud800"}'],
    "blank and missing": [{"prompt": ""}, {"prompt": " "}, {"question": "x"}, {}, GOOD, {"messages": []}],
    "an invalid row with a repeated id": [{"key": "a", "prompt": ""}, {"key": "a", **GOOD}, {"key": "b", **GOOD}],
    "many faults": [*({"prompt": ""} for _ in range(60)), GOOD],
    "an input beside other text": [{"input": "x", "target": "y"}, {"input": "x"}],
    "faults over two shapes": [batch_line("a", stream=True), {"messages": [USER], "stream": True}, batch_line("b")],
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("plan", [{"strategy": "cutoff", "cutoff": 0.5}, {"strategy": "share", "strong": 0.5}])
def test_all_three_commands_judge_every_row_alike(there: JobFolder, name: str, plan: dict[str, Any]) -> None:
    """`check` and `estimate` have the counts of the results, and the first messages in the same order."""
    there.write(ROWS[name])
    spec = {"path": str(there.folder / "prompts.jsonl")} | ({"id_column": "key"} if "key" in str(ROWS[name]) else {})
    job = there.job(input=spec, plan=plan)
    found, estimate, report = check_job(job), estimate_job(job), there.run(job)
    messages = [row["error"]["message"] for row in there.results() if row["status"] == "invalid"]
    assert 0 < len(messages) < len(ROWS[name])
    assert list(found.faults) == list(estimate.faults) == messages[:20]
    assert found.rows == estimate.rows.total == report.rows.total == len(ROWS[name])
    assert found.invalid == estimate.rows.invalid == report.rows.invalid == len(messages)
    assert len(there.served.posts) == report.rows.ok == len(ROWS[name]) - len(messages)
    assert found.problems == ()


def lines(*rows: Any) -> bytes:
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def parquet(table: pa.Table) -> Callable[[Path], object]:
    return lambda path: pq.write_table(table, path)


UNUSABLE: dict[str, tuple[bytes | Callable[[Path], object], str]] = {
    "lfs.jsonl": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 499\n", "Git LFS pointer"),
    "array.jsonl": (json.dumps([GOOD, GOOD], indent=2).encode(), "JSON array"),
    "pretty.jsonl": (json.dumps(GOOD, indent=2).encode(), "pretty-printed JSON"),
    "lists.jsonl": (lines(["hi"], ["ho"]), "lines of JSON lists"),
    "utf16.jsonl": (lines(GOOD, GOOD).decode().encode("utf-16"), "UTF-16"),
    "utf16-without-bom.jsonl": (lines(GOOD, GOOD).decode().encode("utf-16-le"), "UTF-16"),
    "packed.jsonl": (b"\x1f\x8b\x08\x00rest of it\n", "gzip"),
    "page.jsonl": (b"<!DOCTYPE html>\n<html><body>Please log in</body></html>\n", "HTML"),
    "blank.jsonl": (lines({"prompt": ""}, {"prompt": " "}), "all of them fail like line 1: prompt is blank"),
    "mixed.jsonl": (
        lines({"prompt": ""}, {"prompt": 5}, {"prompt": " "}),
        "2 of them fail like line 1: prompt is blank",
    ),
    "alpaca.jsonl": (lines({"instruction": "a", "input": "", "output": "b"}), "input.shape: embeddings"),
    "models.jsonl": (lines({"model": "gpt-9", **GOOD}, {"model": "gpt-8", **GOOD}), "asks for the model 'gpt-9'"),
    "blank.parquet": (parquet(pa.table({"prompt": ["", None]})), "can be sent"),
    "blank.csv": (b"id,prompt\n1,\n2,\n", "can be sent"),
    "one.jsonl": (lines({"prompt": 5}), "its only row cannot be sent"),
    "repr.jsonl": (b"{'prompt': 'a'}\n{'prompt': 'b'}\n", "looks like Python's notation of a dict"),
    "table.jsonl": (b'id,prompt\n1,hello\n2,"x, y"\n', "it seems to be CSV; give its name the ending .csv"),
    "orient.jsonl": (b'{"prompt":{"0":"a","1":"b"}}', 'orient="records"'),
    "late.jsonl": (lines(*({"prompt": "", "x": "y" * 1000} for _ in range(200))), "none of its 200 rows"),
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a good file"])
@pytest.mark.parametrize("name", UNUSABLE)
def test_a_file_of_which_no_row_can_be_sent_is_one_refusal(
    command: Command, job: Job, served: Served, tmp_path: Path, name: str, beside: bool
) -> None:
    """All three commands end with 2 and the same line about the file and its fault; nothing is sent."""
    content, said = UNUSABLE[name]
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "prompts.jsonl").unlink()
    if callable(content):
        content(folder / name)
    else:
        (folder / name).write_bytes(content)
    if beside:
        (folder / "0-good.jsonl").write_bytes(lines(GOOD, GOOD))
    job["input"]["path"] = "in"
    job["models"] = [
        {**model, "endpoints": [{"url": url}]} for model, url in zip(job["models"], served.urls, strict=True)
    ]
    served.forget()
    path = written(job, tmp_path)
    refusals = set()
    for verb in ("check", "estimate", "run"):
        ended = command(verb, path)
        assert ended.status == 2, (verb, ended)
        text = " ".join((ended.out + ended.err).split())
        assert said in text, (verb, text)
        refusals.add(next(line for line in (ended.out + ended.err).splitlines() if name in line).partition(": ")[2])
    assert len(refusals) == 1, refusals
    assert served.posts == []
    assert not (tmp_path / "out" / "results.jsonl").exists()


@pytest.mark.parametrize("verb", ["check", "estimate", "run"])
def test_rows_of_an_unknown_shape_are_one_refusal(command: Command, job: Job, tmp_path: Path, verb: str) -> None:
    """The refusal has the columns and the key that helps; beside a good file, it names the bad one."""
    (tmp_path / "prompts.jsonl").write_bytes(lines({"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}))
    ended = command(verb, written(job, tmp_path))
    assert ended.status == 2
    assert "input.prompt" in ended.out + ended.err
    assert "question, answer" in ended.out + ended.err
    (tmp_path / "good.jsonl").write_bytes(lines(GOOD))
    ended = command(verb, written(job | {"input": {"path": ["good.jsonl", "prompts.jsonl"]}}, tmp_path))
    assert ended.status == 2
    assert "prompts.jsonl: none of its 2 rows can be sent" in ended.out + ended.err
    assert "input.prompt" in ended.out + ended.err


def test_one_good_row_far_behind_is_enough(there: JobFolder) -> None:
    """A file whose first rows are all invalid is read until a good one comes; its invalid rows are recorded."""
    there.write([*({"prompt": "", "x": "y" * 1000} for _ in range(200)), GOOD])
    report = there.run()
    assert (report.rows.ok, report.rows.invalid) == (1, 200)


def test_a_refused_file_can_be_mended_in_its_place(there: JobFolder) -> None:
    """After the refusal, the same command reads the corrected file, without `--fresh`."""
    there.write([{"prompt": ""}])
    with pytest.raises(Exception, match="its only row cannot be sent"):
        there.run()
    there.write([GOOD, GOOD])
    assert there.run().rows.ok == 2


@pytest.mark.parametrize("verb", ["check", "estimate", "run"])
def test_a_hash_key_that_no_row_has_is_one_refusal(command: Command, job: Job, tmp_path: Path, verb: str) -> None:
    """All three commands look for the column of `dispatch.hash_key`."""
    job["dispatch"] = {"balancer": "consistent_hash", "hash_key": "customer"}
    ended = command(verb, written(job, tmp_path))
    assert ended.status == 2
    assert "dispatch.hash_key: no row has the column 'customer'" in ended.out + ended.err


def test_invalid_rows_give_status_1_in_all_three_commands(command: Command, job: Job, tmp_path: Path) -> None:
    """The status tells a script that not every row can be sent."""
    (tmp_path / "prompts.jsonl").write_bytes(lines(GOOD, {"prompt": ""}))
    path = written(job, tmp_path)
    assert [command(verb, path).status for verb in ("check", "estimate", "run")] == [1, 1, 1]
