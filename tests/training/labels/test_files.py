"""Label files are read as judgements or preferences, or refused with file and row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from batch.errors import InputError, SpecError
from batch.training.data import Judged, Preferences
from batch.training.labels.files import Labels, read_labels
from schemas.training import JudgedDataSpec, PreferencesDataSpec, ScoresDataSpec

SPEC: TypeAdapter[JudgedDataSpec | PreferencesDataSpec | ScoresDataSpec] = TypeAdapter(
    JudgedDataSpec | PreferencesDataSpec | ScoresDataSpec
)
PAIR = {"small": "s", "large": "l"}


def read(folder: Path, rows: Sequence[Mapping[str, Any]], **keys: Any) -> Labels:
    """Write the rows to labels.jsonl, and read their labels."""
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_labels(SPEC.validate_python({"path": str(path), **keys}), "data.0")


def judged(folder: Path, rows: Sequence[Mapping[str, Any]], **keys: Any) -> Judged:
    found = read(folder, rows, kind="judged", models=PAIR, **keys).data
    assert isinstance(found, Judged)
    return found


def battles(folder: Path, rows: Sequence[Mapping[str, Any]], **keys: Any) -> Preferences:
    found = read(folder, rows, kind="preferences", **keys).data
    assert isinstance(found, Preferences)
    return found


def test_judgements_in_every_spelling(tmp_path: Path) -> None:
    """Booleans, numbers and their text forms mean the same; an empty label means not judged."""
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "s": True, "l": 1},
        {"prompt": "b", "s": "false", "l": "0.5"},
        {"prompt": "c", "s": None, "l": " True "},
        {"prompt": "d", "s": "", "l": "NaN"},
        {"prompt": "e", "s": 0.25},
    ]
    found = judged(tmp_path, rows)
    assert found.name == "labels"
    assert found.prompts == ["a", "b", "c", "e"]
    np.testing.assert_array_equal(found.quality, [[1, 1], [0, 0.5], [np.nan, 1], [0.25, np.nan]])
    assert read(tmp_path, rows, kind="judged", models=PAIR).skipped == 1


def test_in_parquet_a_null_is_no_label_and_a_nan_is_a_fault(tmp_path: Path) -> None:
    """A null means not judged; a NaN beside nulls comes from arithmetic that went wrong, and is refused."""
    path = tmp_path / "labels.parquet"

    def found(*column: float | None) -> Labels:
        rows = {"prompt": ["a", "b"], "s": pa.array(column, pa.float64()), "l": [1.0, 1.0]}
        pq.write_table(pa.table(rows), path)
        spec = {"kind": "judged", "path": str(path), "models": PAIR}
        return read_labels(JudgedDataSpec.model_validate(spec), "data.0")

    good = found(0.0, None).data
    assert isinstance(good, Judged)
    np.testing.assert_array_equal(good.quality, [[0, 1], [np.nan, 1]])
    with pytest.raises(InputError, match=r"parquet:2: column 's' is nan, not true, .*; leave it empty where nobody"):
        found(0.0, float("nan"))


def test_a_template_makes_prompts_of_columns(tmp_path: Path) -> None:
    """`prompt` may be a template, as in a job's input."""
    found = judged(tmp_path, [{"q": "why", "c": "be brief", "s": 0, "l": 1}], prompt="{q}? {c}")
    assert found.prompts == ["why? be brief"]


def test_messages_are_the_text_that_routers_score(tmp_path: Path) -> None:
    """The prompt is all that the user says, as in a job; a value that is no list of messages is refused."""
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]
    assert judged(tmp_path, [{"m": talk, "s": 0, "l": 1}], prompt="m").prompts == ["why?"]
    with pytest.raises(InputError, match=r"labels\.jsonl:1: messages\[0\] must be an object with a role"):
        judged(tmp_path, [{"m": ["why?"], "s": 0, "l": 1}], prompt="m")


TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "why?"}]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "why?"},
    {"from": "gpt", "value": "So."},
    {"from": "human", "value": "and how?"},
]


@pytest.mark.parametrize(
    ("value", "whole"),
    [
        (json.dumps(TALK), "why?"),
        (SHAREGPT, "why?\nand how?"),
        (json.dumps(SHAREGPT), "why?\nand how?"),
        ({"role": ["user", "assistant"], "content": ["why?", "So."]}, "why?"),
        ([{"role": "user", "content": [{"type": "text", "text": "why?"}], "name": None}], "why?"),
    ],
)
def test_conversations_are_read_in_every_shape_that_a_job_takes(tmp_path: Path, value: Any, whole: str) -> None:
    """A judgement's prompt is all that the user says; a preference's prompt is only the user's first turn."""
    assert judged(tmp_path, [{"m": value, "s": 0, "l": 1}], prompt="m").prompts == [whole]
    sides = {"model_a": "x", "model_b": "y", "winner": "tie"}
    assert battles(tmp_path, [{**sides, "prompt": value}]).prompts == ["why?"]


def test_scores_are_brought_to_one_scale(tmp_path: Path) -> None:
    """Scores of any scale become quality from 0 to 1, also of a scale on which less is better."""
    rows: list[dict[str, Any]] = [{"prompt": "a", "s": 1, "l": 10}, {"prompt": "b", "s": "5.5", "l": None}]
    up = read(tmp_path, rows, kind="scores", models=PAIR, lowest=1, highest=10).data
    down = read(tmp_path, rows, kind="scores", models=PAIR, lowest=10, highest=1).data
    assert isinstance(up, Judged)
    assert isinstance(down, Judged)
    np.testing.assert_allclose(up.quality, np.array([[0, 1], [0.5, np.nan]]))
    np.testing.assert_allclose(down.quality, 1 - up.quality)


def test_preferences_as_the_arena_spells_them(tmp_path: Path) -> None:
    """The winner is a side, a model's name, or one of three columns; a tie of either sort is one half."""
    sides = {"prompt": "p", "model_a": "x", "model_b": "Y"}
    said = ["model_a", "model_b", "tie", "tie (bothbad)", "y", "x"]
    by_word = battles(tmp_path, [{**sides, "winner": word} for word in said])
    assert by_word.outcome.tolist() == [1, 0, 0.5, 0.5, 0, 1]
    columns = ("winner_model_a", "winner_model_b", "winner_tie")
    by_column = battles(tmp_path, [{**sides, **{c: int(c == won) for c in columns}} for won in columns])
    assert by_column.outcome.tolist() == [1, 0, 0.5]
    assert (list(by_column.first), list(by_column.second)) == (["x"] * 3, ["Y"] * 3)


def test_of_a_conversation_the_first_turn_counts(tmp_path: Path) -> None:
    """The first turn is found in a list, in its JSON text and in messages; a prompt in brackets stays as it is."""
    sides = {"model_a": "x", "model_b": "y", "winner": "tie"}
    turns: list[Any] = ['["one", "two"]', ["one", "two"], [{"role": "user", "content": "one"}], "[sic] a prompt"]
    found = battles(tmp_path, [{**sides, "prompt": turn} for turn in turns])
    assert found.prompts == ["one", "one", "one", "[sic] a prompt"]


REFUSED: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "a label off the scale": (
        {"s": 2},
        {},
        r"labels\.jsonl:2: column 's' is 2, not true, false or a number from 0 to 1",
    ),
    "a label that is a word": ({"s": "good"}, {}, r"labels\.jsonl:2: column 's' is a string, not true, false"),
    "a label that is a list": ({"l": [1]}, {}, r"labels\.jsonl:2: column 'l' is a list, not true"),
    "no prompt": ({"prompt": None}, {}, r"labels\.jsonl:2: column 'prompt' is null, not the text of a prompt"),
    "a blank prompt": ({"prompt": " "}, {}, r"labels\.jsonl:2: column 'prompt' is blank"),
    "no such column": (
        {},
        {"models": {"small": "s", "large": "nope"}},
        r"data\.0\.models\.large: no row has the column",
    ),
    "no such prompt": (
        {},
        {"prompt": "question"},
        r"data\.0\.prompt: no row has the column 'question'; .*prompt, s, l",
    ),
    "half a template": ({}, {"prompt": "{question"}, r"data\.0\.prompt: "),
    "a score off the scale": (
        {"s": 7},
        {"kind": "scores", "lowest": 0, "highest": 5},
        r"labels\.jsonl:2: column 's' is 7, not a number from 0 to 5",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_label_is_refused(case: str, tmp_path: Path) -> None:
    """The message is one line that names file and row, or the key, and what is wrong."""
    changed, keys, said = REFUSED[case]
    good = {"prompt": "p", "s": 0, "l": 1}
    with pytest.raises(SpecError, match=said) as caught:
        read(tmp_path, [good, {**good, **changed}], **{"kind": "judged", "models": PAIR, **keys})
    assert "\n" not in str(caught.value)


def test_nothing_but_empty_labels(tmp_path: Path) -> None:
    """A file without a single verdict is refused."""
    with pytest.raises(InputError, match=r"data\.0: none of its 1 rows has a label in s, l$"):
        judged(tmp_path, [{"prompt": "p", "s": None, "l": ""}])
    with pytest.raises(InputError, match=r"data\.0: none of its 1 rows says which answer was preferred$"):
        battles(tmp_path, [{"prompt": "p", "model_a": "x", "model_b": "y", "winner": None}])


def test_a_winner_that_did_not_take_part(tmp_path: Path) -> None:
    """A winner other than the two models, or a row without any column for the winner, is refused with its row."""
    sides = {"prompt": "p", "model_a": "x", "model_b": "y"}
    with pytest.raises(InputError, match=r"data\.0\.winner: labels\.jsonl:1: the winner is neither model_a, model_b"):
        battles(tmp_path, [{**sides, "winner": "z"}])
    with pytest.raises(InputError, match=r"labels\.jsonl:1: neither `winner` nor `winner_model_a` is a column"):
        battles(tmp_path, [sides])
