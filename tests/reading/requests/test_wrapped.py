"""Files whose only object holds all of their rows are refused with the way to unpack them."""

import json
from pathlib import Path
from typing import Any

import pytest

from batch.errors import InputError
from batch.reading.requests.wrapped import rows_inside
from batch.reading.shards import find_shards
from schemas.job import InputSpec

ROWS = [{"q": "a"}, {"q": "b"}]


@pytest.mark.parametrize(
    ("record", "filter_"),
    [
        ({"data": ROWS}, ".data[]"),
        ({"version": "1.1", "rows": ROWS}, ".rows[]"),
        ({"result": {"page": 1, "items": ROWS}}, ".result.items[]"),
        ({"features": ["q"], "rows": [{"row_idx": 0, "row": {"q": "a"}}]}, ".rows[].row"),
    ],
)
def test_a_list_of_rows_is_told_by_its_place(record: dict[str, Any], filter_: str) -> None:
    """The message names the list's place as a jq filter."""
    said = rows_inside(record)
    assert said is not None
    assert f"`jq -c '{filter_}'`" in said


@pytest.mark.parametrize(
    "record",
    [
        {"q": {"0": "a", "1": "b"}, "id": {"0": 1, "1": 2}},
        {"q": ["a", "b"], "id": [1, 2]},
        {"columns": ["q"], "index": [0, 1], "data": [["a"], ["b"]]},
    ],
)
def test_the_columns_of_a_table_are_refused_with_pandas_option_for_rows(record: dict[str, Any]) -> None:
    """All three ways in which pandas writes columns are recognised."""
    assert 'orient="records"' in (rows_inside(record) or "")


@pytest.mark.parametrize(
    "record",
    [
        {"question": "a", "answer": "b"},
        {"question": "a", "choices": ["x", "y"]},
        {"meta": {"source": "x"}, "messages": [{"role": "user", "content": ""}]},
        {"data": []},
        {"it's `odd`": ROWS},
        {},
    ],
)
def test_what_may_be_a_row_is_left_alone(record: dict[str, Any]) -> None:
    """No hint is given for texts, lists of texts, a conversation, or a name that cannot stand in a command."""
    assert rows_inside(record) is None


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_the_refusal_of_such_a_file_says_how_to_unpack_it(tmp_path: Path, name: str) -> None:
    """The hint is in the line that shows the columns; a file with a second row gets no hint."""
    path = tmp_path / name
    path.write_text(json.dumps({"data": ROWS}) + "\n")
    spec = InputSpec(path=str(path))
    with pytest.raises(InputError, match=r"its columns: data \(the rows seem to be .* `jq -c '\.data\[\]'` does\)$"):
        find_shards(spec, tmp_path / "spool")
    path.write_text((json.dumps({"data": ROWS}) + "\n") * 2)
    with pytest.raises(InputError, match=r"its columns: data$"):
        find_shards(spec, tmp_path / "spool")
