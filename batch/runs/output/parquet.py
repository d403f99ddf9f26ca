"""Results as Parquet: typed columns, one schema for all parts.

Rows of JSON Lines need not have the same keys, so the carried columns are known only once the last row has been read.
A part in the run directory therefore keeps them as one JSON column, and they become typed columns when the parts are
joined to the output. A column gets the narrowest type that holds all its values in the whole run: bool, int64, uint64,
double or string. A column with lists, objects or values of several types holds the JSON of each value.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Context, Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from batch.reading.digits import Digits
from batch.reading.exact import EXACT_START, carried_columns, json_of
from batch.runs.output.rows import FIELDS, Result, carried_names
from batch.runs.parts import iter_part

CARRY = "carry"
COMPRESSION = "zstd"

# A price per token that was read from a JSON float has up to 22 decimals; 14 digits are left for whole dollars.
_MONEY = pa.decimal128(38, 24)
_LAST_DECIMAL = Decimal(1).scaleb(-24)
_EXACT = Context(prec=60)

RESULT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("status", pa.string()),
        pa.field("model", pa.string()),
        pa.field("endpoint", pa.string()),
        pa.field("score", pa.float64()),
        pa.field("content", pa.string()),
        pa.field("response", pa.string()),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("cost_usd", _MONEY),
        pa.field("latency_seconds", pa.float64()),
        pa.field("attempts", pa.int64()),
        pa.field("error", pa.struct({"kind": pa.string(), "status": pa.int64(), "message": pa.string()})),
    ]
)
PART_SCHEMA = RESULT_SCHEMA.append(pa.field(CARRY, pa.string()))

# A row group is written once this many rows, or bytes of answers, are held.
_GROUP_ROWS = 8192
_GROUP_BYTES = 16 << 20

# Input whose keys are data would make a table that no program can open: with more columns than this, the carried
# columns stay one JSON column.
MOST_COLUMNS = 1000

_LARGEST_IN_DOUBLE = 2**53
_NOT_FINITE = frozenset({"NaN", "Infinity", "-Infinity"})


class ParquetPart:
    """A Parquet part that is being written. A context manager that writes the last row group and closes the file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = pq.ParquetWriter(file, PART_SCHEMA, compression=COMPRESSION, write_page_checksum=True)
        self._rows: list[Result] = []
        self._bytes = 0

    def write(self, result: Result) -> None:
        """Add the next row."""
        self._rows.append(result)
        self._bytes += len(result.response or b"") + len(result.carry or b"")
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        columns = dict(zip(Result._fields, zip(*self._rows, strict=True), strict=True))
        columns["cost_usd"] = tuple(_money(cost) for cost in columns["cost_usd"])
        columns["error"] = tuple(None if e is None else e.model_dump() for e in columns["error"])
        arrays = [pa.array(columns[field.name], field.type) for field in PART_SCHEMA]
        self._file.write_batch(pa.record_batch(arrays, PART_SCHEMA))
        self._rows.clear()
        self._bytes = 0

    def __enter__(self) -> "ParquetPart":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._rows and kind is None:
                self._flush()
        finally:
            self._file.close()


class Carried:
    """The carried columns of a whole run, with their types.

    Attributes:
        schema: the schema of the output.
    """

    def __init__(self, parts: Iterable[Path]) -> None:
        """Read the carried columns of every part, once, and choose their types."""
        kinds: dict[str, set[str]] = {}
        for carried, odd in _carried(parts):
            kind = _odd_kind if odd else _kind
            for column, value in carried.items():
                kinds.setdefault(column, set()).add(kind(value))
        self._typed = len(kinds) <= MOST_COLUMNS
        self._types = {column: _type(found) for column, found in kinds.items()} if self._typed else {}
        self._is_json = {
            c for c, found in kinds.items() if self._types.get(c) == pa.string() and found - {"null", "str", "nan"}
        }
        names = carried_names(kinds)
        fields = [pa.field(_field_name(names[column]), kind) for column, kind in self._types.items()]
        self.schema = pa.schema([*RESULT_SCHEMA, *(fields if self._typed else [PART_SCHEMA.field(CARRY)])])

    def convert(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Turn a batch of a part into a batch of the output."""
        if not self._typed:
            return batch
        rows = [carried_columns(text.encode()) if text else {} for text in batch.column(CARRY).to_pylist()]
        arrays = [batch.column(name) for name in FIELDS]
        for column, kind in self._types.items():
            values = [row.get(column) for row in rows]
            if column in self._is_json:
                values = [None if v is None else json_of(v) for v in values]
            elif kind == pa.float64():
                values = [float(v) if isinstance(v, str) else v for v in values]
            arrays.append(pa.array(values, kind))
        return pa.record_batch(arrays, self.schema)


def join(parts: Sequence[Path], carried: Carried, target: BinaryIO) -> None:
    """Write these parts, in order, as one file with typed columns, with one row group in memory at a time."""
    with pq.ParquetWriter(target, carried.schema, compression=COMPRESSION) as file:
        for part in parts:
            for batch in iter_part(part, _GROUP_ROWS):
                file.write_batch(carried.convert(batch))


def _carried(parts: Iterable[Path]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The carried columns of each row, and whether they hold values that plain JSON cannot hold exactly."""
    for part in parts:
        for batch in iter_part(part, columns=[CARRY]):
            for text in batch.column(CARRY).to_pylist():
                if text:
                    stored = text.encode()
                    yield carried_columns(stored), stored.startswith(EXACT_START)


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return _kind_of_int(value)
        case float():
            return "float"
        case str():
            # JSON Lines spell numbers that are not finite as text; in a column of numbers they are numbers.
            return "nan" if value in _NOT_FINITE else "str"
        case _:
            return "json"


def _kind_of_int(value: int) -> str:
    if abs(value) <= _LARGEST_IN_DOUBLE:
        return "int" if value >= 0 else "negative int"
    if -(2**63) <= value < 2**63:
        return "long" if value >= 0 else "negative long"
    return "unsigned" if 0 <= value < 2**64 else "json"


def _odd_kind(value: Any) -> str:
    """As `_kind`, for columns that may hold numbers with more digits than a double has, or halves of characters."""
    if isinstance(value, Digits) or (isinstance(value, str) and _is_broken(value)):
        return "json"
    return _kind(value)


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _field_name(name: str) -> str:
    """The name as Arrow accepts it: half a character is replaced by its escape."""
    return name.encode("utf-8", "backslashreplace").decode()


def _type(kinds: set[str]) -> pa.DataType:
    found = kinds - {"null"}
    if found == {"bool"}:
        return pa.bool_()
    if found and found <= {"int", "negative int", "long", "negative long"}:
        return pa.int64()
    if found and found <= {"int", "long", "unsigned"}:
        return pa.uint64()
    if found - {"nan"} and found <= {"int", "negative int", "float", "nan"}:
        return pa.float64()
    return pa.string()


def _money(cost: Decimal | None) -> Decimal | None:
    """The cost with the 24 decimals of its column; further ones are rounded."""
    return None if cost is None else cost.quantize(_LAST_DECIMAL, context=_EXACT)
