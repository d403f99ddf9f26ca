"""Affinity keys: rows with the same key go to the same endpoint under the balancer `consistent_hash`.

A key is a 64-bit hash, the same in every process and run; 0 stands for no key.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from batch.reading.columns import CARRY, ID
from batch.reading.exact import carried_columns, json_of
from batch.runs.schemas import affinity_field
from schemas.job import DispatchSpec

# About 256 tokens, the length by which OpenAI chooses the machine whose prompt cache may know a request: short enough
# for a system prompt or the head of a document to fill it, long enough to tell those apart. If the whole input shares a
# longer beginning, all rows have one key, and the bound on each endpoint's load spreads them evenly.
PREFIX_BYTES = 1024

# Where the prompt of a request begins: parameters in front of it are no part of it. A request of the Responses API has
# no messages; its prompt begins with its instructions.
_MESSAGES = b'"messages":'
_RESPONSES_PROMPT = (b'"instructions":', b'"input":')


def stored_hash_key(spec: DispatchSpec) -> str | None:
    """The hash key whose values routed parts must hold: `id` or the name of an input column; `None`: they need none."""
    return spec.hash_key if spec.balancer == "consistent_hash" and spec.hash_key != "prefix" else None


def hash_key_column(spec: DispatchSpec) -> str | None:
    """The input column that the job's affinity keys come from; `None`: they come from no column."""
    key = stored_hash_key(spec)
    return None if key == "id" else key


def columns_for_hash_key(key: str | None) -> tuple[str, ...]:
    """The columns of a scored part that `with_affinity_keys` needs."""
    match key:
        case None:
            return ()
        case "id":
            return (ID,)
        case _:
            return (ID, CARRY)


def with_affinity_keys(part: pa.Table, key: str) -> pa.Table:
    """The part with the column `affinity_field(key)` added.

    A row that lacks the input column goes by its id: where ids are taken from that very column, the id is its value.
    """
    ids = part[ID].to_pylist()
    if key == "id":
        values: list[Any] = ids
    else:
        carried = (carried_columns(cell) if cell is not None else {} for cell in part[CARRY].to_pylist())
        values = [row.get(key, own) for row, own in zip(carried, ids, strict=True)]
    hashes = [_hash(json_of(value)) for value in values]
    field = affinity_field(key)
    return part.append_column(field, pa.array(hashes, field.type))


def affinity_keys(batch: pa.RecordBatch, bodies: Sequence[bytes], key: str | None) -> list[int]:
    """The affinity key of each request in a batch of a routed part.

    All are 0 if the job needs none, or if the part was routed for a job that needed none.
    """
    if key == "prefix":
        return [_hash(_beginning(body)) for body in bodies]
    if key is None or affinity_field(key).name not in batch.schema.names:
        return [0] * len(bodies)
    keys: list[int] = batch.column(affinity_field(key).name).to_pylist()
    return keys


def _beginning(body: bytes) -> bytes:
    start = body.find(_MESSAGES)
    if start < 0:
        start = next((at for name in _RESPONSES_PROMPT if (at := body.find(name)) >= 0), 0)
    return body[start : start + PREFIX_BYTES]


def _hash(value: bytes) -> int:
    return int.from_bytes(blake2b(value, digest_size=8).digest()) or 1
