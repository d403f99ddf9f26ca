"""The schemas of scored and routed parts, against the parts that scoring and routing write."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from batch.planning.routing import RoutedRows
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from batch.running.scorer import Scorer
from batch.running.stages import RouteTask, route
from batch.runs.layout import Layout
from batch.runs.parts import read_part, write_scored
from batch.runs.schemas import (
    COMMITTED_COLUMNS,
    COST_BOUND_COLUMNS,
    ESTIMATED_COLUMNS,
    PLACE_COLUMNS,
    PLANNED_COLUMNS,
    REQUEST_COLUMNS,
    SUMMARY_COLUMNS,
    routed_schema,
    scored_schema,
)
from schemas.endpoints import ModelSpec
from schemas.job import InputSpec
from schemas.routers import ImportRouterSpec, LengthRouterSpec, RouterSpec

MODELS = (ModelSpec(name="small"), ModelSpec(name="middle"), ModelSpec(name="large"))
PAIR = LengthRouterSpec(kind="length")
EVERY_MODEL = ImportRouterSpec(kind="import", path=f"{__name__}:OneQualityEach")


class OneQualityEach:
    """A router that predicts the same quality of each model for every prompt."""

    models = tuple(model.name for model in MODELS)

    def score(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.linspace(0, 1, len(MODELS), dtype=np.float32), (len(prompts), 1))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "run")


def score(layout: Layout, router: RouterSpec) -> None:
    """Read, score and store two rows, of which one is invalid."""
    source = layout.path.parent / "prompts.jsonl"
    source.write_text('{"id": "a", "prompt": "one", "topic": 1}\n{"id": "b"}\n')
    spec = InputSpec(path=str(source))
    (shard,) = find_shards(spec, layout.spool)
    table = read_shard(shard, spec, lambda texts: [1] * len(texts))
    write_scored(layout, 0, Scorer(router, MODELS).score(table))


@pytest.mark.parametrize(
    ("router", "quality_models"), [(PAIR, ()), (EVERY_MODEL, [model.name for model in MODELS])], ids=["pair", "many"]
)
def test_scored_parts_have_the_scored_schema(layout: Layout, router: RouterSpec, quality_models: Sequence[str]) -> None:
    """Names, types, nullability and order match the schema; a router of many models adds the quality of each."""
    score(layout, router)
    stored = read_part(layout.scored(0)).schema.remove_metadata()
    assert stored == scored_schema(quality_models)


@pytest.mark.parametrize("hash_key", [None, "id", "topic"])
def test_routed_parts_have_the_routed_schema(layout: Layout, hash_key: str | None) -> None:
    """A routed part has a request's columns, and a column of keys if the balancer uses an id or an input column."""
    score(layout, PAIR)
    nothing = np.full(2, -1, np.int64)
    rows = RoutedRows(np.array([0, -1], np.int16), nothing, nothing)
    route(RouteTask(layout, 0, ("small",), rows, hash_key))
    assert read_part(layout.routed("small", 0)).schema.remove_metadata() == routed_schema(hash_key)


def test_readers_ask_only_for_columns_that_are_written() -> None:
    """Readers name only columns that are written, because a misspelled one would silently be left out."""
    readers = (
        REQUEST_COLUMNS,
        PLANNED_COLUMNS,
        COMMITTED_COLUMNS,
        SUMMARY_COLUMNS,
        PLACE_COLUMNS,
        COST_BOUND_COLUMNS,
        ESTIMATED_COLUMNS,
    )
    written = set(scored_schema().names)
    for columns in readers:
        assert set(columns) <= written
