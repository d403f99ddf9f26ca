"""Results of earlier runs, joined with their input and judged."""

import json
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.errors import InputError
from batch.training.data import Judged
from batch.training.labels.files import Labels
from batch.training.labels.judging import AnswerToJudge
from batch.training.labels.results import read_results
from schemas.training import ResultsDataSpec

INPUT = [{"id": f"q{i}", "question": f"Which? {i}", "reference": "yes"} for i in range(3)]


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def result(own: str, content: str | None, model: str = "small", status: str = "ok") -> dict[str, Any]:
    return {"id": own, "status": status, "model": model, "content": content}


def by_content(answers: Sequence[AnswerToJudge]) -> list[float]:
    """A judge that reads the quality from the answer's text; "?" gets no verdict."""
    return [nan if answer.content == "?" else float(answer.content) for answer in answers]


def read(folder: Path, *runs: Sequence[Mapping[str, Any]], **judge: Any) -> Labels:
    source = {"path": write(folder / "prompts.jsonl", INPUT), "prompt": "{question}"}
    paths = [write(folder / f"run{i}.jsonl", rows) for i, rows in enumerate(runs)]
    spec = {"kind": "results", "input": source, "runs": paths, "judge": judge or {"kind": "exact"}}
    return read_results(ResultsDataSpec.model_validate(spec), "data.0", by_content)


def test_answers_become_quality_by_model_and_prompt(tmp_path: Path) -> None:
    """A model's answers to one prompt count as their mean; failed, empty and unjudged answers are left out."""
    small = [result("q0", "1"), result("q1", "0"), result("q0", "0"), result("q2", "?")]
    large = [result("q1", "1", "large"), result("q0", None, "large", "failed"), result("other", "1", "large")]
    found = read(tmp_path, small, large)
    assert isinstance(found.data, Judged)
    assert found.data.models == ("small", "large")
    assert found.data.prompts == ["Which? 0", "Which? 1"]
    np.testing.assert_array_equal(found.data.quality, [[0.5, np.nan], [0, 1]])
    assert found.skipped == 3
    assert found.notes == (
        "1 results have an id that the input does not have; they are left out",
        "1 of 5 answers could not be judged; they are left out",
    )
    assert [file.name for file in found.files] == ["prompts.jsonl", "run0.jsonl", "run1.jsonl"]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    """Foreign ids, files that hold no results, answers without a verdict and a missing reference are refused."""
    with pytest.raises(InputError, match=r"^data\.0\.runs: no answer belongs to a row of `input`"):
        read(tmp_path, [result("elsewhere", "1")])
    with pytest.raises(InputError, match=r"^data\.0\.runs: no row has the column 'status'"):
        read(tmp_path, [{"custom_id": "q0", "response": {}}])
    with pytest.raises(
        InputError, match=r"^data\.0\.runs: run0\.jsonl:2: not a result of a run: it has no model, content"
    ):
        read(tmp_path, [result("q0", "1"), {"id": "q1", "status": "ok"}])
    with pytest.raises(InputError, match=r"^data\.0\.judge: none of 2 answers could be judged$"):
        read(tmp_path, [result("q0", "?"), result("q1", "?")])
    with pytest.raises(InputError, match=r"^data\.0\.judge\.column: no row has the column 'right'"):
        read(tmp_path, [result("q0", "1")], kind="exact", column="right")


def test_an_input_that_is_not_there_is_named_by_its_own_key(tmp_path: Path) -> None:
    """The message names `data.0.input.path`, the key in the training file."""
    source = {"path": str(tmp_path / "nowhere.jsonl"), "prompt": "{question}"}
    runs = write(tmp_path / "run.jsonl", [result("q0", "1")])
    spec = {"kind": "results", "input": source, "runs": runs, "judge": {"kind": "exact"}}
    with pytest.raises(InputError, match=r"nowhere\.jsonl: no such file; check data\.0\.input\.path$"):
        read_results(ResultsDataSpec.model_validate(spec), "data.0", by_content)


def test_a_run_directory_without_results(tmp_path: Path) -> None:
    """The message points to `batchrouter status`."""
    (tmp_path / "r.run").mkdir()
    (tmp_path / "r.run" / "run.json").write_text("{}")
    source = {"path": write(tmp_path / "prompts.jsonl", INPUT), "prompt": "{question}"}
    spec = {"kind": "results", "input": source, "runs": str(tmp_path / "r.run"), "judge": {"kind": "exact"}}
    with pytest.raises(InputError, match=r"r\.run: this run directory holds no results yet; `batchrouter status`"):
        read_results(ResultsDataSpec.model_validate(spec), "data.0", by_content)
