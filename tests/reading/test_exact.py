"""Numbers that orjson cannot hold, and rows that have them."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.reading.digits import Digits
from batch.reading.exact import ExactInt, carried_columns, carried_json, loads, long_number_lines, request_json
from batch.reading.invalid import InvalidRow
from tests.reading.rows import Row, body, read_lines


def carry(row: Row) -> bytes:
    found: bytes = row["carry"]
    return found


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("18446744073709551617", "18446744073709551617"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("0.1234567890123456789", "0.1234567890123456789"),
        ("12345678901234567890.5", "12345678901234567890.5"),
        ("123456789012345678901234567890e5", "123456789012345678901234567890e5"),
        ("0.1", "0.1"),
        ('[1,{"deep":[123456789012345678901234567890]}]', '[1,{"deep":[123456789012345678901234567890]}]'),
        ("NaN", '"NaN"'),
        ("[Infinity,-Infinity]", '["Infinity","-Infinity"]'),
        ("1e999", '"1e999"'),
        ("1e-12345678901234567890", "1e-12345678901234567890"),
        ("0.5E-9999999999999999999", "0.5E-9999999999999999999"),
        ("9" * 5000, '"' + "9" * 5000 + '"'),
        ('"\\ud83d"', '"\\ud83d"'),
        ('{"\\ud83d":1}', '{"\\ud83d":1}'),
    ],
)
def test_a_carried_value_keeps_its_digits(tmp_path: Path, written: str, kept: str) -> None:
    """A carried column never makes its row invalid, and comes out as it was written, or as text of it."""
    rows = read_lines(tmp_path, [{"prompt": "a"}, f'{{"id":7,"prompt":"b","x":{written}}}'.encode(), {"prompt": "c"}])
    assert [row["error_kind"] for row in rows] == [None, None, None]
    assert rows[1]["id"] == "7"
    assert carry(rows[1]).replace(b"{ ", b"{") == f'{{"x":{kept}}}'.encode()


def test_whole_numbers_beyond_64_bits_are_ids(tmp_path: Path) -> None:
    """An id keeps every digit, whether `id_column` names its column or it is found by default."""
    line = b'{"id":123456789012345678901234567890,"key":-98765432109876543210,"prompt":"a"}'
    (found,) = read_lines(tmp_path, [line])
    assert found["id"] == "123456789012345678901234567890"
    (asked,) = read_lines(tmp_path, [line], id_column="key")
    assert asked["id"] == "-98765432109876543210"
    assert carry(asked) == b'{ "id":123456789012345678901234567890}'


def test_a_template_shows_all_digits_and_takes_nan_for_null(tmp_path: Path) -> None:
    """Numbers go into a prompt as the file has them; NaN is how pandas writes a missing cell."""
    lines = [b'{"n":123456789012345678901234567890,"x":0.1234567890123456789}', b'{"n":NaN,"x":1,"y":NaN}']
    good, bad = read_lines(tmp_path, lines, prompt="{n} {x}")
    assert good["text"] == "123456789012345678901234567890 0.1234567890123456789"
    assert bad["error_kind"] == "missing_column"
    assert bad["error_message"].startswith("in.jsonl:2: column 'n' is null")
    assert carry(bad) == b'{ "n":"NaN","x":1,"y":"NaN"}'


def test_a_request_keeps_its_digits_or_is_refused(tmp_path: Path) -> None:
    """A long number is sent as it is; a parameter that is NaN is left out; NaN inside a parameter is a fault."""
    rows = read_lines(
        tmp_path,
        [
            b'{"messages":[{"role":"user","content":"a","big":18446744073709551617}]}',
            b'{"messages":[{"role":"user","content":"b"}],"temperature":NaN}',
            b'{"messages":[{"role":"user","content":"c"}],"logit_bias":{"5":NaN}}',
        ],
    )
    assert b'"big":18446744073709551617}' in rows[0]["body"]
    assert "temperature" not in body(rows[1])
    assert carry(rows[1]) == b'{ "temperature":"NaN"}'
    assert rows[2]["error_kind"] == "wrong_type"
    assert "NaN" in rows[2]["error_message"]


def test_requests_with_what_json_lacks_are_refused() -> None:
    """Bytes, numbers out of range and lone surrogates make a request invalid; none is replaced."""
    for value in (b"\xff", Digits.of("1e999"), "\ud800"):
        with pytest.raises(InvalidRow):
            request_json({"messages": [{"content": value}]})


numbers = st.one_of(
    st.integers(-(10**45), 10**45),
    st.integers(-(2**65), 2**65),
    st.decimals(allow_nan=False, allow_infinity=False, places=12).map(lambda d: Digits.of(format(d, "f"))),
    st.floats(allow_nan=False, allow_infinity=False),
)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(numbers, st.text(), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def written(value: Any) -> str:
    """JSON as a careful program writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return value.text if isinstance(value, Digits) else json.dumps(value)


@given(st.dictionaries(st.text(max_size=5), values, max_size=4))
def test_carried_values_are_those_that_were_written(columns: dict[str, Any]) -> None:
    """Parsed, carried and read back, every number is the same to its last digit."""
    text = written(columns)
    carried = carried_columns(carried_json(loads(text)))
    assert json.loads(written(carried), parse_float=Decimal) == json.loads(text, parse_float=Decimal)


@given(
    st.lists(st.dictionaries(st.sampled_from("abc"), values, max_size=3), min_size=1, max_size=8), st.integers(0, 12)
)
def test_lines_that_orjson_would_change_are_found(rows: list[dict[str, Any]], padding: int) -> None:
    """If orjson would change a number, its line is among those that are read exactly, wherever it is in the file."""
    lines = [" " * padding + written(row) for row in rows]
    data = "\n".join(lines).encode()
    found = long_number_lines(data)
    start = 0
    for line in lines:
        if start not in found:
            parsed = orjson.loads(line)
            exact = loads(line)
            assert not any(isinstance(value, ExactInt) for value in flat(exact)), line
            for mine, right in zip(flat(parsed), flat(exact), strict=True):
                # Floats are written with up to 17 digits, so a decimal of that length may differ.
                assert mine == right or len(str(right).strip("-0.").replace(".", "")) <= 17
                assert isinstance(mine, float) == isinstance(right, float)
        start += len(line.encode()) + 1


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in flat(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in flat(inner)]
    return [value]


def test_lines_of_plain_floats_are_not_read_twice() -> None:
    """Embeddings and log probabilities have as many digits as a float, so they take the fast way."""
    vectors = np.random.default_rng(0).normal(size=(20, 50)).tolist()
    data = b"\n".join(json.dumps({"id": 1234567890123456789, "vector": row}).encode() for row in vectors)
    assert long_number_lines(data) == frozenset()
