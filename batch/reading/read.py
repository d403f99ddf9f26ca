"""Reads one shard into a table of canonical columns."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from hashlib import blake2b
from itertools import islice
from math import isnan
from typing import NamedTuple

import pyarrow as pa

from batch.reading.columns import HASH_BYTES, ID_HASH_BYTES, PROMPT_TOKENS, READ_SCHEMA
from batch.reading.exact import carried_json, request_json
from batch.reading.ids import IdRule, RowId, made_up_id
from batch.reading.invalid import InvalidRow
from batch.reading.notes import Fact, Notes, notes_to_metadata
from batch.reading.records import Record, shard_records
from batch.reading.requests.batch_lines import is_batch_line
from batch.reading.shapes import SHAPE_COLUMNS, Shaper
from batch.reading.shard import Shard
from schemas.job import InputSpec

# Rows held as Python objects at a time. A 16 MiB shard of short rows, held whole, took 1.1 GB: each bytes object that
# orjson returns was measured to occupy 4 kB, however short it is, for as long as it is kept.
BATCH_ROWS = 2048

TokenCounter = Callable[[Sequence[str]], Sequence[int]]
"""Returns the number of tokens of each text."""


def read_shard(shard: Shard, spec: InputSpec, count_tokens: TokenCounter) -> pa.Table:
    """Read a shard into a table of READ_SCHEMA: every row, good or invalid, in input order.

    `count_tokens` is called once, with the whole prompt text of each good row. The schema's metadata holds the notes on
    the shard's good rows (`batch.reading.notes`). The content of a row never raises: a bad row becomes an invalid row.

    Raises:
        InputError: the file cannot be read, or has changed since it was cut into shards.
        SpecError: the job's template or params cannot be used.
    """
    shaper, ids = Shaper(spec), IdRule(spec)
    notes = Notes()
    for code, text in shard.notes:
        notes.add(Fact(code, text), shard.name, rows=0)
    records = shard_records(shard)
    if shard.partition:
        records = _comparing_folders(records, shard, notes)
    rows = (
        _row(shard, number, line, record, shaper, ids, notes)
        for number, (line, record) in enumerate(records, shard.first_row)
    )
    table = _table(rows, count_tokens)
    return table.replace_schema_metadata(notes_to_metadata(notes.all()))


def _comparing_folders(
    records: Iterable[tuple[int, Record | InvalidRow]], shard: Shard, notes: Notes
) -> Iterator[tuple[int, Record | InvalidRow]]:
    """Pass the records on, and note columns whose value differs from the one in the name of the file's folder."""
    facts = {
        key: Fact("folder_differs", f"the file's own column `{key}` is taken where its folder says another value")
        for key, _ in shard.partition
    }
    for line, record in records:
        if isinstance(record, dict):
            for key, value in shard.partition:
                own = record[key]
                # A folder's name has no types: 2024 and "2024" are one value.
                if own != value and str(own) != str(value):
                    notes.add(facts[key], f"{shard.name}:{line}")
        yield line, record


class _Row(NamedTuple):
    """One row of the table, in the order of READ_SCHEMA."""

    row: int
    line: int
    id: str
    id_hash: int | None
    id_found: str | None = None
    text: str | None = None
    url: str | None = None
    body: bytes | None = None
    counted: str | None = None
    """Text whose tokens count towards `prompt_tokens`."""
    tokens: int = 0
    """Number of token ids in the request, added to these."""
    max_tokens: int | None = None
    hash: bytes | None = None
    deterministic: bool = False
    asked: str | None = None
    carry: bytes | None = None
    error_kind: str | None = None
    error_message: str | None = None


def _row(
    shard: Shard,
    number: int,
    line: int,
    record: Record | InvalidRow,
    shaper: Shaper,
    ids: IdRule,
    notes: Notes,
) -> _Row:
    own: RowId | None = None
    if isinstance(record, InvalidRow):
        return _invalid(shard, number, line, own, record, None)
    used: Set[str] = SHAPE_COLUMNS if shaper.template is None else frozenset()
    try:
        own = ids.of(record, shard.name, batch_line=shaper.template is None and is_batch_line(record))
        id_hash = _id_hash(own)
        shaped = shaper.shape(record if type(record) is dict else _without_nan(record))
        used = shaped.used
        body = request_json(shaped.body)
        ordered = request_json(shaped.body, sort_keys=True)
        if type(record) is not dict and shaped.asked is not None:
            shaped.asked.encode()
        if type(record) is not dict:
            # NaN counts as null in a request, and null columns are left out of it, so NaN columns are carried instead.
            used = used - {key for key, value in record.items() if isinstance(value, float) and isnan(value)}
        carry = _carry(record, own, used)
    except InvalidRow as fault:
        return _invalid(shard, number, line, own, _real_fault(fault, record), _carry_or_none(record, own, used))
    except UnicodeEncodeError:
        broken = InvalidRow("invalid_json", "its id or model holds half a character (a lone surrogate)")
        return _invalid(shard, number, line, None, broken, _carry_or_none(record, None, used))
    except RecursionError:
        too_deep = InvalidRow("invalid_json", "nested too deeply")
        return _invalid(shard, number, line, own, too_deep, None)
    for fact in shaped.notes:
        notes.add(fact, f"{shard.name}:{line}")
    return _Row(
        row=number,
        line=line,
        id=made_up_id(shard.name, line) if own is None else own.id,
        id_hash=id_hash,
        id_found=None if own is None else own.found,
        text=shaped.text,
        url=shaped.url,
        body=body,
        counted=shaped.counted,
        tokens=shaped.tokens,
        max_tokens=shaped.max_tokens,
        hash=blake2b(shaped.url.encode() + ordered, digest_size=HASH_BYTES).digest(),
        deterministic=shaped.deterministic,
        asked=shaped.asked,
        carry=carry,
    )


def _invalid(shard: Shard, number: int, line: int, own: RowId | None, fault: InvalidRow, carry: bytes | None) -> _Row:
    return _Row(
        row=number,
        line=line,
        id=made_up_id(shard.name, line) if own is None else own.id,
        id_hash=_id_hash(own),
        id_found=None if own is None else own.found,
        carry=carry,
        error_kind=fault.kind,
        error_message=f"{shard.name}:{line}: {fault.message}",
    )


def _id_hash(own: RowId | None) -> int | None:
    if own is None:
        return None
    return int.from_bytes(blake2b(own.id.encode(), digest_size=ID_HASH_BYTES).digest(), "little")


def _real_fault(fault: InvalidRow, record: Record) -> InvalidRow:
    """Return the fault, or "not UTF-8" if a column of undecodable bytes caused a wrong type."""
    if fault.kind == "wrong_type":
        for name, value in record.items():
            if isinstance(value, bytes):
                return InvalidRow("invalid_encoding", f"column {name!r} is not UTF-8")
    return fault


def _without_nan(record: Record) -> Record:
    """Replace NaN by null, as requests need it: pandas writes NaN for missing values."""
    return {key: None if isinstance(value, float) and isnan(value) else value for key, value in record.items()}


def _carry(record: Record, own: RowId | None, used: Set[str]) -> bytes | None:
    """The JSON of the columns that are neither the id nor part of the request. Raises RecursionError."""
    column = None if own is None else own.column
    rest = {key: value for key, value in record.items() if key not in used and key != column}
    return carried_json(rest) if rest else None


def _carry_or_none(record: Record, own: RowId | None, used: Set[str]) -> bytes | None:
    try:
        return _carry(record, own, used)
    except RecursionError:
        # The row is invalid already. A value nested too deeply cannot be written, so nothing is carried.
        return None


def _table(rows: Iterator[_Row], count_tokens: TokenCounter) -> pa.Table:
    at = READ_SCHEMA.get_field_index(PROMPT_TOKENS)
    schema = READ_SCHEMA.remove(at)
    batches: list[pa.RecordBatch] = []
    texts: list[str] = []
    beside: list[int | None] = []
    while some := list(islice(rows, BATCH_ROWS)):
        columns = dict(zip(_Row._fields, zip(*some, strict=True), strict=True))
        batches.append(pa.record_batch([pa.array(columns[field.name], field.type) for field in schema], schema))
        texts += [text for text in columns["counted"] if text is not None]
        pairs = zip(columns["counted"], columns["tokens"], strict=True)
        beside += [None if text is None else tokens for text, tokens in pairs]
    counts = iter(count_tokens(texts))
    tokens = pa.array([None if ids is None else next(counts) + ids for ids in beside], pa.int32())
    table = pa.Table.from_batches(batches, schema).unify_dictionaries().combine_chunks()
    return table.add_column(at, READ_SCHEMA.field(at), tokens)
