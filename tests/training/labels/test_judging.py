"""Judges that compare an answer with a reference, and judges that are a user's own function."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import InputError, SpecError
from batch.training.labels.judging import AnswerToJudge, exact_judge, extractor, function_judge, last_number
from schemas.training import ExactJudgeSpec, FunctionJudgeSpec


def answer(content: str, **row: Any) -> AnswerToJudge:
    return AnswerToJudge("results.jsonl:7", "small", "What is it?", content, row, "prompts.jsonl:3")


def exact(content: str, reference: Any, **keys: Any) -> float:
    (quality,) = exact_judge(ExactJudgeSpec(kind="exact", **keys), "judge")([answer(content, reference=reference)])
    return quality


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She pays $57.00.", "57"),
        ("#### 1,234", "1234"),
        ("from 3 to -4", "-4"),
        ("10-5", "5"),
        ("1, 2, 3", "3"),
        ("1,2,3", "3"),
        ("12,345,678.50 in all", "12345678.5"),
        ("about 2.5e3", "2.5E+3"),
        ("it is 0.0 then", "0"),
        ("\\boxed{42}", "42"),
        ("**18**", "18"),
        ("none", None),
        ("room A5", None),
    ],
)
def test_the_last_number_in_a_text(text: str, number: str | None) -> None:
    """The last number is found whatever surrounds it, and is returned in one spelling."""
    assert last_number(text) == number


@given(st.integers(-(10**9), 10**9))
def test_a_number_is_one_number_in_every_spelling(number: int) -> None:
    """Commas between thousands and decimal zeros do not change the number."""
    assert {last_number(f"It is {shown}.") for shown in (number, f"{number:,}", f"{number}.00")} == {
        last_number(str(number))
    }


def test_an_answer_is_right_where_it_is_the_reference() -> None:
    """An answer is compared whole or in part, by case or not; a reference may be a number, and `None` is no verdict."""
    assert exact(" yes\n", "yes") == 1.0
    assert exact("Yes", "yes") == 0.0
    assert exact("Yes", "yes", ignore_case=True) == 1.0
    assert exact("So the answer is 1,200.", "... #### 1200", extract="last_number") == 1.0
    assert exact("I do not know", 5, extract="last_number") == 0.0
    assert exact("First (A), no: (C)", "(C)", extract=r"\(([A-D])\)") == 1.0
    assert np.isnan(exact("yes", None))


def test_a_reference_in_which_nothing_is_found_is_refused() -> None:
    """The message names the reference's row; a reference that is no text is refused too."""
    with pytest.raises(InputError, match=r"^prompts\.jsonl:3: `extract` finds nothing in the reference"):
        exact("5", "five", extract="last_number")
    with pytest.raises(InputError, match=r"^prompts\.jsonl:3: column 'reference' holds no text"):
        exact("5", ["5"])


def test_a_pattern_that_is_none_is_refused() -> None:
    """The message names the key, before anything is judged."""
    with pytest.raises(SpecError, match=r"^judge\.extract: '\(' is not a regular expression"):
        extractor("(", "judge.extract")


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's own module of judges; returns its name."""
    (tmp_path / "own_judges.py").write_text(
        "def length(prompt, answer, row): return min(len(answer) / row['most'], 1)\n"
        "def says(prompt, answer, row): return row['verdict']\n"
        "def breaks(prompt, answer, row): return 1 / 0\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_judges", raising=False)
    return "own_judges"


def asked(path: str, *answers: AnswerToJudge) -> list[float]:
    return list(function_judge(FunctionJudgeSpec(kind="function", path=path), "judge")(answers))


def test_a_function_judges(functions: str) -> None:
    """The function receives prompt, answer and row; a boolean counts as 1 or 0, and `None` is no verdict."""
    assert asked(f"{functions}:length", answer("1234", most=8), answer("1234", most=2)) == [0.5, 1.0]
    verdicts = asked(f"{functions}:says", *(answer("", verdict=v) for v in (True, False, 0.3, None)))
    np.testing.assert_array_equal(verdicts, [1.0, 0.0, 0.3, np.nan])


def test_a_module_that_fails_at_import_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the module and the exception that its import raised."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "judges_nothing.py").write_text("1 / 0\n")
    with pytest.raises(SpecError, match=r"^judge\.path: importing 'judges_nothing' failed: ZeroDivisionError"):
        asked("judges_nothing:f", answer(""))


def test_a_function_that_cannot_be_used_is_refused(functions: str) -> None:
    """The message names the function, and the answer on which it failed."""
    for path, row, said in (
        ("no_such_module:f", {}, r"^judge\.path: cannot import 'no_such_module'"),
        (f"{functions}:nothing", {}, r"^judge\.path: the module 'own_judges' has no function 'nothing'"),
        (f"{functions}:constant", {}, r"has no function 'constant'"),
        (f"{functions}:breaks", {}, r"breaks failed for results\.jsonl:7: ZeroDivisionError"),
        (f"{functions}:says", {"verdict": 2}, r"returned 2 for results\.jsonl:7, not a number from 0 to 1"),
        (f"{functions}:says", {"verdict": [1]}, r"returned list for results\.jsonl:7, not a number"),
    ):
        with pytest.raises(SpecError, match=said):
            asked(path, answer("x", **row))
