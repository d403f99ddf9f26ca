"""A shard on disk as scoring and routing leave it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa

from batch.costs.prices import Price
from batch.runs.committed import Committed
from batch.runs.layout import Layout
from batch.runs.output.commit import commit_shard
from batch.runs.parts import write_part
from batch.runs.routing_record import RoutingRecord, write_routing_record
from schemas.job import OutputSpec

MODELS = ("weak", "strong")
PRICES: Mapping[str, Price | None] = {
    "weak": Price(Decimal("0.0000006"), Decimal("0.0000006")),
    "strong": Price(Decimal("0.00003"), Decimal("0.00006")),
}


def row(number: int, **values: Any) -> dict[str, Any]:
    """One row of a scored part."""
    return {
        "row": number,
        "id": f"id-{number}",
        "score": 0.116,
        "carry": None,
        "pinned": None,
        "prompt_tokens": 10,
        "max_tokens": 100,
        "error_kind": None,
        "error_message": None,
        **values,
    }


def bad(number: int, **values: Any) -> dict[str, Any]:
    """One row that cannot be sent."""
    return row(
        number, **{"score": None, "error_kind": "invalid_json", "error_message": f"a.jsonl:{number}: broken", **values}
    )


SCORED = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("score", pa.float32()),
        ("carry", pa.binary()),
        ("pinned", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("max_tokens", pa.int32()),
        ("error_kind", pa.string()),
        ("error_message", pa.string()),
    ]
)


def write_shard(
    layout: Layout,
    rows: Sequence[dict[str, Any]],
    routed: Mapping[str, Sequence[int]],
    *,
    shard: int = 0,
    shares_answer_of: Mapping[int, int] | None = None,
    duplicate_ids: Mapping[int, str] | None = None,
) -> None:
    """Write the scored part, the routed parts and the routing record."""
    write_part(layout.scored(shard), pa.Table.from_pylist(list(rows), SCORED))
    for model, numbers in routed.items():
        write_part(layout.routed(model, shard), pa.table({"row": pa.array(numbers, pa.int64())}))
    counts = {model: len(numbers) for model, numbers in routed.items()}
    write_routing_record(layout, shard, RoutingRecord(counts, shares_answer_of or {}, duplicate_ids or {}))


def commit(layout: Layout, output: OutputSpec, *, shard: int = 0, **changes: Any) -> Committed:
    """Commit a shard at the test's prices."""
    given: dict[str, Any] = {"prices": PRICES, "fallbacks": {}, **changes}
    return commit_shard(layout, shard, output=output, **given)


def results(layout: Layout, shard: int = 0) -> list[dict[str, Any]]:
    """The part's rows."""
    return [orjson.loads(line) for line in layout.part(shard, "jsonl").read_bytes().splitlines()]
