"""Grading answers by a model, which is asked through a job."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batch.errors import SpecError
from batch.training.labels.judging import AnswerToJudge, Judge
from jobs.commands.judge import model_judge
from schemas.training import ModelJudgeSpec
from tests.rehearsed import Served, serve

PROMPT = "{prompt} | {response} | {hint}"
# The judge's reply to each prompt.
REPLIES = {
    "q | good | h": "Right.\n10",
    "q | fair | h": "Half of it is right: 5.5/10",
    "q | poor | h": "Wrong. 1",
    "q | odd | h": "I give it 11",
    "q | mute | h": "I cannot say",
}


@pytest.fixture(scope="module")
def judging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A rehearsed judge that has a reply for each prompt of REPLIES."""
    path = tmp_path_factory.mktemp("judge") / "replies.jsonl"
    path.write_text("".join(json.dumps({"prompt": p, "reply": r}) + "\n" for p, r in REPLIES.items()))
    with serve({"model": "judge", "answers": {"file": str(path)}}) as served:
        yield served


@pytest.fixture
def served(judging: Served) -> Served:
    judging.forget()
    return judging


def spec(served: Served, **keys: Any) -> ModelJudgeSpec:
    model = {"name": "judge", "endpoints": [{"url": served.urls[0]}]}
    return ModelJudgeSpec.model_validate({"kind": "model", "model": model, "prompt": PROMPT, **keys})


def answers(*contents: str) -> list[AnswerToJudge]:
    return [
        AnswerToJudge(f"r.jsonl:{i}", "small", "q", content, {"hint": "h"}, "p.jsonl:1")
        for i, content in enumerate(contents)
    ]


def judge_in(folder: Path, served: Served, **keys: Any) -> Judge:
    return model_judge(spec(served, **keys), "data.0.judge", folder)


def test_grades_become_quality(served: Served, tmp_path: Path) -> None:
    """Grades are scaled to 0..1; a grade off the scale or none is NaN; equal answers are graded by one request."""
    judge = judge_in(tmp_path, served)
    quality = judge(answers("good", "fair", "poor", "odd", "mute", "good"))
    np.testing.assert_allclose(quality, [1.0, 0.5, 0.0, np.nan, np.nan, 1.0])
    assert served.prompts() == dict.fromkeys(REPLIES, 1)
    assert {post["temperature"] for post in served.posts} == {0}


def test_what_was_graded_is_not_graded_again(served: Served, tmp_path: Path) -> None:
    """A later call with more answers sends only new ones; a judge with other parameters grades anew."""
    judge_in(tmp_path, served)(answers("good", "poor"))
    served.forget()
    np.testing.assert_allclose(judge_in(tmp_path, served)(answers("poor", "fair", "good")), [0.0, 0.5, 1.0])
    assert served.prompts() == {"q | fair | h": 1}
    judge_in(tmp_path, served, params={"temperature": 0.5})(answers("good"))
    assert served.prompts() == {"q | fair | h": 1, "q | good | h": 1}


def test_a_grade_where_a_pattern_finds_it(served: Served, tmp_path: Path) -> None:
    """`extract` finds the grade, on the scale that the spec gives."""
    judge = judge_in(tmp_path, served, extract=r"(Right|Wrong)\.", lowest=0, highest=1)
    assert np.isnan(judge(answers("good"))).all()
    np.testing.assert_allclose(judge_in(tmp_path, served, extract=r"\d+$", highest=20)(answers("good")), [9 / 19])


def test_a_judge_that_grades_nothing_is_an_error(served: Served, tmp_path: Path) -> None:
    """The error has the first reason; a prompt without the answer is refused before any request."""
    never = r"^data\.0\.judge: judge graded none of 1 answers; the first: bad_request, HTTP 422"
    with pytest.raises(SpecError, match=never):
        judge_in(tmp_path, served)(answers("never recorded"))
    with pytest.raises(SpecError, match=r"^data\.0\.judge\.prompt: it has no \{response\}"):
        judge_in(tmp_path, served, prompt="{prompt}")
    with pytest.raises(SpecError, match=r"^data\.0\.judge\.prompt: p\.jsonl:1: column 'other' is missing"):
        judge_in(tmp_path, served, prompt="{response} {other}")(answers("good"))


def test_the_plain_prompt_shows_request_response_and_scale(served: Served, tmp_path: Path) -> None:
    """Without a template of the user's, the prompt has the request, the response and the scale."""
    with pytest.raises(SpecError, match="graded none"):
        judge_in(tmp_path, served, prompt=None, lowest=0, highest=5)(answers("the {answer} given"))
    (prompt,) = served.prompts()
    for part in ("Request:\nq\n", "Response:\nthe {answer} given\n", "from 0 (useless) to 5"):
        assert part in prompt
