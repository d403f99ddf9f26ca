"""Carried columns in the results: exact in both formats."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from batch.reading.exact import carried_json, loads
from batch.runs.output.parquet import Carried, ParquetPart, join
from batch.runs.output.rows import Result, to_json

BIG = 123456789012345678901234567890


def result(row: int, carry: str) -> Result:
    return Result(
        id=str(row),
        row=row,
        status="ok",
        model="small",
        endpoint="http://a/v1",
        score=None,
        content="yes",
        response=b"{}",
        prompt_tokens=1,
        completion_tokens=1,
        cost_usd=None,
        latency_seconds=0.1,
        attempts=1,
        error=None,
        carry=carried_json(loads(carry)),
    )


def as_parquet(folder: Path, *carries: str) -> Any:
    with (folder / "part.parquet").open("wb") as file, ParquetPart(file) as part:
        for row, carry in enumerate(carries):
            part.write(result(row, carry))
    with (folder / "out.parquet").open("wb") as target:
        join([folder / "part.parquet"], Carried([folder / "part.parquet"]), target)
    return pq.read_table(folder / "out.parquet")


def test_lines_keep_numbers_of_any_length() -> None:
    """A number keeps all its digits, even if its column has the name of a field of the results."""
    line = to_json(result(0, f'{{"n":{BIG},"x":0.1234567890123456789,"nan":NaN}}'))
    assert line.endswith(b',"n":%d,"x":0.1234567890123456789,"nan":"NaN"}' % BIG)
    assert json.loads(line)["n"] == BIG
    taken = to_json(result(0, f'{{"score":{BIG},"half":"\\ud83d"}}'))
    assert taken.endswith(b',"input_score":%d,"half":"\\ud83d"}' % BIG)


def test_parquet_has_numbers_where_a_type_holds_them_and_digits_where_none_does(tmp_path: Path) -> None:
    """Unsigned whole numbers and columns with NaN keep a numeric type; longer numbers are text with all digits."""
    table = as_parquet(
        tmp_path,
        f'{{"u":18446744073709551615,"f":0.5,"n":NaN,"big":{BIG},"long":0.1234567890123456789,"mixed":{2**63},"only":NaN}}',
        '{"u":1,"f":NaN,"n":7,"big":-1,"long":2,"mixed":-1,"only":null}',
        '{"u":null,"f":-Infinity,"n":null,"big":null,"long":null,"mixed":null,"only":"NaN"}',
    )
    types = {name: table.schema.field(name).type for name in ("u", "f", "n", "big", "long", "mixed", "only")}
    assert types == {
        "u": pa.uint64(),
        "f": pa.float64(),
        "n": pa.float64(),
        "big": pa.string(),
        "long": pa.string(),
        "mixed": pa.string(),
        "only": pa.string(),
    }
    assert table["u"].to_pylist() == [2**64 - 1, 1, None]
    assert str(table["f"].to_pylist()) == "[0.5, nan, -inf]"
    assert str(table["n"].to_pylist()) == "[nan, 7.0, None]"
    assert table["big"].to_pylist() == [str(BIG), "-1", None]
    assert table["long"].to_pylist() == ["0.1234567890123456789", "2", None]
    assert table["mixed"].to_pylist() == [str(2**63), "-1", None]
    assert table["only"].to_pylist() == ["NaN", None, "NaN"]


def test_half_a_character_does_not_cost_the_file(tmp_path: Path) -> None:
    """A lone surrogate has no UTF-8, so a column with one holds JSON, and a column name with one has its escape."""
    table = as_parquet(tmp_path, '{"a":"\\ud83d","\\ud83d":1}', '{"a":"whole"}')
    assert table["a"].to_pylist() == ['"\\ud83d"', '"whole"']
    assert table["\\ud83d"].to_pylist() == [1, None]
