"""Planner: it routes scored shards in input order, one shard at a time."""

from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from batch.reading.shard import Shard
from batch.running.planner import Planner
from batch.running.stages import RouteTask, ScoredShard
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import Fingerprint
from batch.runs.parts import write_part
from schemas.job import JobSpec

SHARDS = 4
ROWS = 50


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    """A run directory with scored parts of 50 rows each; the first and the last shard have the same ids."""
    directory = RunDirectory.open(tmp_path / "run", Fingerprint(), job="j", created="", version="")
    for shard in range(SHARDS):
        rows = range(shard * ROWS, (shard + 1) * ROWS)
        columns = {
            "row": pa.array(rows, pa.int64()),
            "score": pa.array([(row * 37 % 101) / 101 for row in rows], pa.float32()),
            "own_cutoff": pa.nulls(ROWS, pa.float32()),
            "pinned": pa.nulls(ROWS, pa.string()),
            "error_kind": pa.nulls(ROWS, pa.string()),
            "id_hash": pa.array([row % ROWS + (shard % (SHARDS - 1)) * ROWS for row in rows], pa.uint64()),
            "hash": pa.array([row.to_bytes(16) for row in rows], pa.binary(16)),
            "deterministic": [True] * ROWS,
        }
        write_part(directory.layout.scored(shard), pa.table(columns))
    return directory


def planner(directory: RunDirectory, plan: dict[str, object], routed: frozenset[int] = frozenset()) -> Planner:
    models = [{"name": name, "endpoints": [{"url": "http://a/v1"}]} for name in ("small", "large")]
    job = JobSpec.model_validate(
        {"input": {"path": "in.jsonl"}, "router": {"kind": "length"}, "models": models, "plan": plan}
        | {"output": {"path": "out.jsonl"}}
    )
    shards = [Shard(i, "in.jsonl", "in.jsonl", "jsonl", 0, 1, i * ROWS, ROWS, 1) for i in range(SHARDS)]
    return Planner(job, shards, directory, routed)


def scored(shard: int) -> ScoredShard:
    return ScoredShard(shard, ROWS, 0, None)


def decisions(routings: list[RouteTask]) -> list[tuple[int, list[int], list[int]]]:
    return [(r.index, r.rows.model.tolist(), r.rows.repeats_id_of.tolist()) for r in routings]


def test_each_routing_is_made_when_it_is_taken(directory: RunDirectory) -> None:
    """Taking routings one at a time gives what taking all at once gives, and does not read later shards meanwhile."""
    plan = {"strategy": "share", "strong": 0.5}
    at_once, one_by_one = planner(directory, plan), planner(directory, plan)
    for shard in range(SHARDS):
        at_once.offer(scored(shard))
        one_by_one.offer(scored(shard))
    all_of_them = list(at_once.take())
    taken = [next(one_by_one.take())]
    last = directory.layout.scored(SHARDS - 1)
    last.rename(last.with_suffix(".hidden"))
    taken += [next(one_by_one.take()), next(one_by_one.take())]
    last.with_suffix(".hidden").rename(last)
    taken += list(one_by_one.take())
    assert [routing.index for routing in taken] == list(range(SHARDS))
    assert decisions(taken) == decisions(all_of_them)
    assert list(one_by_one.take()) == []
    repeats_id_of = all_of_them[-1].rows.repeats_id_of.tolist()
    assert repeats_id_of == list(range(ROWS)), "each row of the last shard has the id of one in the first"


def test_a_share_waits_for_all_scores_and_a_cutoff_for_those_of_earlier_shards(directory: RunDirectory) -> None:
    """This holds in whatever order the shards are scored."""
    share = planner(directory, {"strategy": "share", "strong": 0.5})
    cutoff = planner(directory, {"strategy": "cutoff", "cutoff": 0.5})
    given: dict[str, list[list[int]]] = {"share": [], "cutoff": []}
    for shard in (1, 0, 3, 2):
        for name, asked in (("share", share), ("cutoff", cutoff)):
            asked.offer(scored(shard))
            given[name].append([routing.index for routing in asked.take()])
    assert given["share"] == [[], [], [], [0, 1, 2, 3]]
    assert given["cutoff"] == [[], [0, 1], [], [2, 3]]


def test_routed_shards_are_read_but_not_routed_again(directory: RunDirectory) -> None:
    """Later shards get the same decisions as if all shards were routed now."""
    plan = {"strategy": "share", "strong": 0.5}
    whole, rest = planner(directory, plan), planner(directory, plan, frozenset({0, 1}))
    for shard in range(SHARDS):
        whole.offer(scored(shard))
        rest.offer(scored(shard))
    assert decisions(list(rest.take())) == decisions(list(whole.take()))[2:]
    assert list(chain(planner(directory, plan, frozenset(range(SHARDS))).take())) == []
