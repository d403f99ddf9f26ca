"""Values of Arrow columns are exact, also where Python or JSON has no type for them."""

from decimal import Decimal
from typing import Any

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch.reading.exact import carried_json
from batch.reading.formats.arrow_values import plain_values

EPOCH_NS = 1_700_000_000_123_456_717
EPOCH = b'"2023-11-14T22:13:20.123456717"'
NANOSECONDS = pa.timestamp("ns")
MAP = pa.map_(pa.string(), NANOSECONDS)
STRUCT = pa.struct({"t": NANOSECONDS, "x": pa.string()})


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([EPOCH_NS, None, -1], NANOSECONDS), [EPOCH, b"null", b'"1969-12-31T23:59:59.999999999"']),
        (pa.array([EPOCH_NS // 1000], pa.timestamp("us")), [b'"2023-11-14T22:13:20.123456"']),
        (pa.array([1_500], pa.timestamp("ms")), [b'"1970-01-01T00:00:01.500000"']),
        (pa.array([EPOCH_NS], pa.timestamp("ns", "Europe/Paris")), [b'"2023-11-14T23:13:20.123456717+01:00"']),
        (pa.array([EPOCH_NS], pa.timestamp("ns", "-03:30")), [b'"2023-11-14T18:43:20.123456717-03:30"']),
        (pa.array([0], pa.timestamp("s", "Nowhere/Here")), [b'"1970-01-01T00:00:00+00:00"']),
        (
            pa.array([253_402_300_800, -62_167_219_201]).cast(pa.timestamp("s")),
            [b'"10000-01-01T00:00:00"', b'"-0001-12-31T23:59:59"'],
        ),
        (pa.array([2_932_897, None], pa.date32()), [b'"10000-01-01"', b"null"]),
        (pa.array([86_400_000], pa.date64()), [b'"1970-01-02"']),
        (pa.array([3_723_000_000_001, 0], pa.time64("ns")), [b'"01:02:03.000000001"', b'"00:00:00"']),
        (pa.array([3_723_500], pa.time32("ms")), [b'"01:02:03.500000"']),
        (pa.array([1_500_000_000, 1, 2**63 - 1], pa.duration("ns")), [b"1.5", b"1e-9", b"9223372036.854775807"]),
        (pa.array([3], pa.duration("s")), [b"3.0"]),
        (pa.array([Decimal("1.50"), Decimal("0E-10")], pa.decimal128(38, 10)), [b'"1.5000000000"', b'"0.0000000000"']),
        (pa.array([Decimal(10**60 + 1)], pa.decimal256(70, 0)), [b'"1' + b"0" * 59 + b'1"']),
        (pa.array([2**64 - 1], pa.uint64()), [b"18446744073709551615"]),
        (pa.array([EPOCH_NS] * 2, NANOSECONDS).dictionary_encode(), [EPOCH] * 2),
        (pa.array([[EPOCH_NS], None, []], pa.list_(NANOSECONDS)), [b"[" + EPOCH + b"]", b"null", b"[]"]),
        (pa.array([[1, None], None], pa.list_(pa.duration("ns"), 2)), [b"[1e-9,null]", b"null"]),
        (pa.array([{"t": EPOCH_NS, "x": "a"}, None], STRUCT), [b'{"t":' + EPOCH + b',"x":"a"}', b"null"]),
        (
            pa.array([[("k", EPOCH_NS)], None, []], pa.map_(pa.string(), NANOSECONDS)),
            [b'[["k",' + EPOCH + b"]]", b"null", b"[]"],
        ),
        (pa.array([b"text", b"\xff", None], pa.large_binary()), [b'"text"', b'"/w=="', b"null"]),
        (pa.array(["a"], pa.string_view()), [b'"a"']),
        (pa.array([b"ok", b"\xff"], pa.large_binary()).view(pa.large_string()), [b'"ok"', b'"/w=="']),
        (pa.array([float("nan"), float("-inf"), 0.5, None]), [b'"NaN"', b'"-Infinity"', b"0.5", b"null"]),
        (pa.array([[float("inf")]], pa.list_(pa.float32())), [b'["Infinity"]']),
        (pa.array([b"0123456789abcdef"], pa.uuid()), [b'"30313233-3435-3637-3839-616263646566"']),
        (pc.run_end_encode(pa.array(["a", "a", None])), [b'"a"', b'"a"', b"null"]),
        (pa.array([True, None]), [b"true", b"null"]),
        (pa.nulls(1), [b"null"]),
    ],
)
def test_values_keep_every_digit(array: Any, expected: list[bytes]) -> None:
    """Times, numbers and nested values come out as they are stored, in slices too, and null stays null."""
    assert [carried_json({"v": value}).replace(b"{ ", b"{") for value in plain_values(array)] == [
        b'{"v":' + text + b"}" for text in expected
    ]
    for start in range(1, len(array)):
        assert plain_values(array.slice(start))[0] == plain_values(array)[start] or "NaN" in str(expected)


def test_plain_values_are_those_of_arrows_own_conversion() -> None:
    """If Python has a type for every value, the values are those of Arrow's own conversion."""
    rows = [{"messages": [{"role": "user", "content": "a", "n": None}], "x": [1.5, None], "b": None}] * 3
    array = pa.array([*rows, None])
    assert plain_values(array) == array.to_pylist()


def test_columns_of_polars_are_read() -> None:
    """Polars writes large and view types, and durations and times in nanoseconds."""
    frame = pl.DataFrame(
        {
            "at": pl.Series([1_704_164_645_000_000_007], dtype=pl.Int64).cast(pl.Datetime("ns")),
            "wait": pl.Series([1_000_000_001], dtype=pl.Duration("ns")),
            "clock": pl.Series([3_723_000_000_001], dtype=pl.Int64).cast(pl.Time),
            "kind": pl.Series(["a"], dtype=pl.Categorical),
        }
    )
    batch = frame.to_arrow().to_batches()[0]
    values = [plain_values(column)[0] for column in batch.columns]
    assert values == ["2024-01-02T03:04:05.000000007", 1.000000001, "01:02:03.000000001", "a"]
    assert orjson.dumps(values)
