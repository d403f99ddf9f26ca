"""Files that are one JSON array, or objects over several lines."""

import gzip
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import InputError
from batch.reading.formats import json_documents
from batch.reading.formats.json_documents import json_rows
from schemas.job import InputSpec
from tests.reading.rows import carried, read_all


def rows_of(text: str, size: int = 5, limit: int | None = None) -> list[Any]:
    raw = text.encode()
    chunks = [raw[at : at + size] for at in range(0, len(raw), size)]
    return [orjson.loads(line) for line in json_rows("in.json", chunks, limit)]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('[{"a":1},{"a":2}]', [1, 2]),
        ('[{"a":1},{"a":2},{"a":3},\n{"a":4},\n\n\n{"a":5}]', [1, 2, 3, 4, 5]),
        ('\n [\n {"a": 1},\n\n {"a":\n 2}\n]\n', [3, 5]),
        ('{"a":\n1}\n{\n"a":2\n}\n', [1, 3]),
        ('{"a":1}{"a":2}', [1, 2]),
        ("[]", []),
        ("", []),
        (" \n", []),
        ("\ufeff[]", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_every_object_is_a_row_with_its_line_which_no_other_row_has(text: str, lines: list[int], size: int) -> None:
    """Arrays and objects, on one line or several, are read wherever the bytes are cut into chunks."""
    assert rows_of(text, size) == [[line, {"a": number}] for number, line in enumerate(lines, 1)]


def test_values_that_are_no_objects_are_invalid_and_their_neighbours_good() -> None:
    """In an array the end of each value is known, so a value that is not an object makes only itself invalid."""
    rows = rows_of('[12345, "x", {"a":1}, [2], null]')
    assert [row[1] for row in rows] == [None, None, {"a": 1}, None, None]
    assert rows[0] == [1, None, "wrong_type", "a row must be a JSON object, not a number"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[{"a":1},\n{"a":}]' + " " * 500, 2, "not JSON"),
        ('[{"a":1},\n{"a":2}', 2, "may be cut off"),
        ('[{"a":1},\n{"a":"open', 2, "not JSON"),
        ('[{"a":1}\n{"a":2}]', 2, "a comma"),
        ('[{"a":1}]\n{"a":2}', 2, "after the end of the array"),
        ('{"a":1}\nbroken', 2, "not JSON"),
        ("prompt\n", 1, "neither a JSON array nor"),
        ("[" * 100_000, 1, "nested too deeply"),
        ('[{"a":1},]', 1, "a comma stands before the end of the array; delete it"),
        ('[{"a":1},\n{"a":2}, \n\n]\n', 4, "a comma stands before the end of the array; delete it"),
    ],
)
def test_a_broken_value_refuses_the_file_by_its_line(text: str, line: int, words: str) -> None:
    """After a broken value the next row's start is unknown, so the file is refused."""
    with pytest.raises(InputError) as caught:
        rows_of(text, 100)
    assert str(caught.value).startswith(f"in.json:{line}: ")
    assert words in str(caught.value)


def test_memory_is_bounded_if_the_file_is_one_object(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that holds all rows is not read to its end."""
    monkeypatch.setattr(json_documents, "MAX_ROW_CHARACTERS", 1000)
    taken = []

    def chunks() -> Any:
        yield b'{"data": ['
        for number in range(10_000):
            taken.append(number)
            yield b'{"a": 1},'

    with pytest.raises(InputError, match="longer than 1,000 characters"):
        list(json_rows("in.json", chunks(), None))
    assert len(taken) < 500


def test_reading_stops_at_the_limit() -> None:
    """Text after the last row within the limit is not parsed."""
    assert len(rows_of('[{"a":1},{"a":2},broken', limit=2)) == 2


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=5),
    st.sampled_from([None, 1]),
    st.integers(1, 50),
)
def test_the_output_of_json_dump_is_read_back(rows: list[dict[str, Any]], indent: int | None, size: int) -> None:
    """Any objects come back from an array, compact or pretty-printed, in chunks of any size, with all their digits."""
    raw = json.dumps(rows, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    lines = list(json_rows("in.json", (raw[at : at + size] for at in range(0, len(raw), size)), None))
    assert all(line.count(b"\n") == 1 for line in lines)
    assert [json.loads(line)[1] for line in lines] == rows


@pytest.mark.parametrize("name", ["in.json", "in.json.gz"])
@pytest.mark.parametrize(
    "text",
    [
        '[{"id":1,"prompt":"a","n":123456789012345678901234567890},{"id":2,"prompt":"b"}]',
        '[\n {\n  "id": 1,\n  "prompt": "a",\n  "n": 123456789012345678901234567890\n },\n {"id":2,"prompt":"b"}\n]',
        '{"id":1,"prompt":"a","n":123456789012345678901234567890}\n{"id":2,"prompt":"b"}\n',
        '{\n"id":1,"prompt":"a","n":123456789012345678901234567890}\n{"id":2,"prompt":"b"}\n',
    ],
)
def test_a_json_file_is_an_array_or_objects_or_lines(tmp_path: Path, name: str, text: str) -> None:
    """An array, objects over several lines and JSON Lines give the same rows with all their digits."""
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if name.endswith(".gz") else text.encode())
    rows = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert [(row["id"], row["text"]) for row in rows] == [("1", "a"), ("2", "b")]
    assert rows[0]["carry"] == b'{ "n":123456789012345678901234567890}'
    assert carried(rows[1]) is None


def test_a_broken_line_of_a_json_file_with_lines_is_invalid(tmp_path: Path) -> None:
    """A .json file of lines is read as a .jsonl file."""
    (tmp_path / "in.json").write_text('{"prompt":"a"}\n{broken\n{"prompt":"b"}\n')
    rows = read_all(InputSpec(path=str(tmp_path / "in.json")), tmp_path / "spool")
    assert [row["error_kind"] for row in rows] == [None, "invalid_json", None]


def test_a_number_of_any_length_is_kept_as_it_is_written() -> None:
    """Python refuses ints of more than 4,300 digits; as a row of its own, such a number is invalid like any other."""
    digits = "9" * 5000
    raw = f'[{{"n": {digits}}}, -{digits}, {{"n": 1}}]'.encode()
    first, second, third = json_rows("in.json", [raw], None)
    assert first == b'[1,{"n": %b}]\n' % digits.encode()
    assert orjson.loads(second)[2:] == ["wrong_type", "a row must be a JSON object, not a number"]
    assert orjson.loads(third) == [3, {"n": 1}]
