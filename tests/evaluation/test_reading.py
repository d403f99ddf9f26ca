"""Benchmarks read from RouteLLM's response files, from tables of the same responses, and from labelled files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from batch.errors import InputError
from batch.evaluation.benchmark import Benchmark
from batch.evaluation.reading import read_benchmarks
from schemas.evaluation_spec import BenchmarkSpec
from tests.evaluation.layouts import STRONG, WEAK, write_contaminated, write_mt_bench, write_responses


def read(prices: dict[str, float] | None = None, **spec: Any) -> list[Benchmark]:
    validated: BenchmarkSpec = TypeAdapter(BenchmarkSpec).validate_python(spec)
    return read_benchmarks(validated, "benchmarks.0", prices or {})


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_gsm8k_as_routellm_has_it(tmp_path: Path) -> None:
    """`path` may be the folder or the CSV file; models come from the columns, contaminated prompts are left out."""
    rows = [("one,\ntwo?", True, False), ("three?", False, True), ("seen before?", True, True)]
    write_responses(tmp_path / "gsm8k_responses.csv", rows)
    write_contaminated(tmp_path, "seen before?")
    for path in (tmp_path, tmp_path / "gsm8k_responses.csv"):
        [found] = read(kind="gsm8k", path=str(path))
        assert (found.name, found.models) == ("gsm8k", (WEAK, STRONG))
        assert list(found.prompts) == ["one,\ntwo?", "three?"]
        np.testing.assert_array_equal(found.quality, [[1, 0], [0, 1]])


def test_mmlu_as_routellm_has_it(tmp_path: Path) -> None:
    """All subjects' files are read, and a second benchmark leaves out the badly graded subject."""
    write_responses(tmp_path / "responses" / "mmlu_anatomy.csv", [("a", True, True), ("b", False, True)])
    write_responses(tmp_path / "responses" / "mmlu_high_school_mathematics.csv", [("c", True, False)])
    write_contaminated(tmp_path, "b")
    whole, without = read(kind="mmlu", path=str(tmp_path))
    assert (list(whole.prompts), list(without.prompts)) == (["a", "c"], ["a"])
    assert without.name == "mmlu without high_school_mathematics"
    assert any("one token" in note for note in whole.notes)


def test_mt_bench_as_routellm_has_it(tmp_path: Path) -> None:
    """A question's quality is the mean grade of both turns; a question with a failed judgement, -1, is left out."""
    write_mt_bench(tmp_path, {81: (6.0, 9.0), 82: (8.0, 7.0), 83: (-1.0, 9.0)})
    [found] = read(kind="mt-bench", path=str(tmp_path))
    assert found.grades
    assert list(found.prompts) == ["question 81", "question 82"]
    np.testing.assert_array_equal(found.quality, [[5.5, 8.5], [7.5, 6.5]])
    assert any("too few questions" in note for note in found.notes)
    assert any("left out" in note for note in found.notes)


def test_tables_give_the_same(tmp_path: Path) -> None:
    """Parquet files with weak_ and strong_ columns replace response files; relaxed labels make a second benchmark."""
    frame = pd.DataFrame({"prompt": ["a", "b"], "weak_correct": [True, False], "strong_correct": [False, True]})
    frame.assign(weak_correct_relaxed=True, strong_correct_relaxed=[True, True]).to_parquet(tmp_path / "gsm8k.parquet")
    strict, relaxed = read(kind="gsm8k", path=str(tmp_path / "gsm8k.parquet"), weak="small", strong="large")
    assert (strict.models, relaxed.name) == (("small", "large"), "gsm8k relaxed")
    np.testing.assert_array_equal(strict.quality, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(relaxed.quality, [[1, 1], [1, 1]])
    frame.assign(domain=["law", "high_school_mathematics"]).to_parquet(tmp_path / "mmlu.parquet")
    assert [len(one.prompts) for one in read(kind="mmlu", path=str(tmp_path / "mmlu.parquet"))] == [2, 1]
    grades = pd.DataFrame({"turn1": ["a"], "weak_score": [8.5], "strong_score": [9.0]})
    grades.to_parquet(tmp_path / "mt.parquet")
    [found] = read(kind="mt-bench", path=str(tmp_path / "mt.parquet"))
    np.testing.assert_array_equal(found.quality, [[8.5, 9.0]])


def test_labelled_files_hold_any_number_of_models(tmp_path: Path) -> None:
    """Columns hold quality and costs, a template makes the prompt, `by` makes the sets; unjudged rows are left out."""
    path = lines(
        tmp_path / "mine.jsonl",
        {"q": "one", "topic": "law", "s": True, "m": 0.5, "l": 1, "cs": 1, "cm": 2, "cl": 3},
        {"q": "two", "topic": "law", "s": None, "m": 0.5, "l": 1, "cs": 1, "cm": 2, "cl": 3},
        {"q": "three", "topic": "tax", "s": "false", "m": "0.25", "l": 1, "cs": 4, "cm": 5, "cl": 6},
    )
    law, tax = read(
        kind="labelled",
        path=path,
        prompt="Say: {q}",
        quality={"small": "s", "medium": "m", "large": "l"},
        costs={"small": "cs", "medium": "cm", "large": "cl"},
        by="topic",
    )
    assert (law.name, tax.name, tax.models) == ("mine law", "mine tax", ("small", "medium", "large"))
    assert (list(law.prompts), list(tax.prompts)) == (["Say: one"], ["Say: three"])
    np.testing.assert_array_equal(tax.quality, [[0, 0.25, 1]])
    assert tax.cost is not None
    np.testing.assert_array_equal(tax.cost, [[4, 5, 6]])
    assert any("1 of 2 prompts are left out" in note for note in law.notes)


def test_rows_that_name_no_set_are_one(tmp_path: Path) -> None:
    """Rows without a value in `by` form a benchmark called "without set"; notes say what is left out and why."""
    rows = [{"q": f"p{at}", "a": at % 2 if at else None, "b": 1, "set": "x" if at > 1 else None} for at in range(4)]
    path = lines(tmp_path / "l.jsonl", *rows)
    found = read(kind="labelled", path=path, prompt="q", quality={"small": "a", "large": "b"}, by="set")
    assert [one.name for one in found] == ["l without set", "l x"]
    left_out = "1 of 2 prompts are left out: not every model's answer to them was judged"
    assert found[0].notes == (left_out, "only 1 prompt: intervals are wide")
    assert found[1].notes == ("only 2 prompts: intervals are wide",)


def test_prices_make_costs(tmp_path: Path) -> None:
    """A model's price is the cost of its answers; a note names a model without one; values over 1 are grades."""
    path = lines(tmp_path / "mine.jsonl", {"prompt": "a", "s": 3, "l": 9}, {"prompt": "b", "s": 2, "l": 8})
    spec = {"kind": "labelled", "path": path, "quality": {"small": "s", "large": "l"}}
    [found] = read({"small": 1.0, "large": 5.0}, **spec)
    assert found.grades
    assert found.cost is not None
    np.testing.assert_array_equal(found.cost, [[1, 5], [1, 5]])
    [unpriced], [lacking] = read({}, **spec), read({"small": 1.0}, **spec)
    assert unpriced.cost is lacking.cost is None
    assert set(lacking.notes) - set(unpriced.notes) == {
        "`prices` has none for large, so what answers cost is not known"
    }


@pytest.mark.parametrize(
    ("kind", "content", "more", "said"),
    [
        ("labelled", '{"prompt": "a", "s": 1}', {"quality": {"small": "s", "large": "l"}}, "no row has the column 'l'"),
        (
            "labelled",
            '{"prompt": "a", "s": 1, "l": "good"}',
            {"quality": {"small": "s", "large": "l"}},
            "x.jsonl:1: column 'l' holds neither a number, true nor false",
        ),
        (
            "labelled",
            '{"prompt": 7, "s": 1, "l": 1}',
            {"quality": {"small": "s", "large": "l"}},
            "x.jsonl:1: column 'prompt' is a number, not the text of a prompt",
        ),
        (
            "labelled",
            '{"prompt": "a", "s": null, "l": 1}',
            {"quality": {"small": "s", "large": "l"}},
            "no prompt is left",
        ),
        ("gsm8k", '{"prompt": "a", "weak_correct": true}', {}, "no row has the column 'strong_correct'"),
    ],
)
def test_bad_labels_are_refused_in_one_line(
    kind: str, content: str, more: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """The message is one line that says what is wrong, and in which row if one row is at fault."""
    path = tmp_path / "x.jsonl"
    path.write_text(content + "\n")
    with pytest.raises(InputError) as refused:
        read(kind=kind, path=str(path), **more)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_models_that_response_files_do_not_hold_are_refused(tmp_path: Path) -> None:
    """The message names the models that the file does hold, or the model and question without a grade."""
    write_responses(tmp_path / "gsm8k_responses.csv", [("a", True, True)])
    with pytest.raises(InputError, match=f"no column 'other'; benchmarks.0 names models as the files do: .*{STRONG}"):
        read(kind="gsm8k", path=str(tmp_path), weak="other")
    write_mt_bench(tmp_path, {81: (6.0, 9.0)})
    with pytest.raises(InputError, match="no grade of 'other' for question 81"):
        read(kind="mt-bench", path=str(tmp_path), strong="other")
    with pytest.raises(InputError, match="no such file"):
        read(kind="mmlu", path=str(tmp_path / "absent"))
