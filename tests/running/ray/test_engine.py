"""The engine on Ray, against one real local cluster."""

import json
import logging
import os
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from batch.errors import BadRequest, SpecError, StorageError
from batch.reading.shards import find_shards
from batch.running.dispatch_thread import DispatchPlan, DispatchState
from batch.running.engine import DispatchHandle, InlineEngine
from batch.running.ray.engine import RayEngine
from batch.running.stages import ReadTask, ScoreTask
from batch.runs.layout import Layout
from batch.runs.parts import write_part
from batch.runs.routing_record import RoutingRecord, write_routing_record
from jobs.environment import ENVIRONMENT, end_process, pause, ray_folders, set_library_defaults
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec, JobSpec
from tests.e2e.commands import living
from tests.e2e.ledger_server import Ledger, ledger_server
from tests.rehearsed import serve
from tests.routers.embedders.endpoint_checkpoint import DIMENSION, MODEL, write_checkpoint

pytestmark = pytest.mark.real

KEY_NAME = "CLUSTER_TEST_KEY"
KEY = "sk-0123456789-never-to-be-seen"
PATIENCE_SECONDS = 60
LISTENING = "0A"
# 127.0.0.1, the same behind IPv6, and ::1, as the kernel writes them.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    """A local cluster. The key is set before Ray starts, as for a user; the cluster in RAY_ADDRESS must be ignored."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(KEY_NAME, KEY)
        environment.setenv("RAY_ADDRESS", "127.0.0.1:9")
        set_library_defaults()
        running = RayEngine(
            address=None,
            actors=1,
            environment=ENVIRONMENT,
            pause=pause,
            end_process=end_process,
            folders=ray_folders(),
        )
        running.start()
        yield running
        running.close()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with ledger_server(tmp_path_factory.mktemp("ledger")) as running:
        yield running


def raises(error: Exception) -> None:
    raise error


def result_of(engine: RayEngine | InlineEngine, handle: Any) -> Any:
    """Wait for one handle as the pipeline does, and return its result."""
    waiting = {handle}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (done := engine.wait(waiting, 1)):
        assert time.monotonic() < deadline
    assert done == [handle]
    return engine.result(handle)


def test_work_returns_what_the_function_returned(engine: RayEngine) -> None:
    """Arguments reach the task, and its value comes back."""
    assert result_of(engine, engine.submit(divmod, 17, 5)) == (3, 2)


def test_map_keeps_the_order(engine: RayEngine) -> None:
    """Results come in the order of the items, whichever was finished first."""
    assert list(engine.map(hex, range(40))) == [hex(number) for number in range(40)]


@pytest.mark.parametrize(
    "error",
    [
        SpecError("job.yaml:3: it is wrong"),
        StorageError("the disk is full"),
        BadRequest("HTTP 400", status=400, code="too_long", body=b"{}"),
        ValueError("not ours"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_itself(engine: RayEngine, error: Exception) -> None:
    """`result` raises what the task raised, with its class, text and attributes, and not an error of Ray's."""
    with pytest.raises(type(error)) as caught:
        result_of(engine, engine.submit(raises, error))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)
    with pytest.raises(type(error)):
        engine.map(raises, [error])


@pytest.mark.parametrize("kind", ["random", "import"])
def test_a_shard_is_scored_as_in_process(engine: RayEngine, tmp_path: Path, kind: str) -> None:
    """A task scores for a light router, an actor for a heavy one; both store byte for byte what InlineEngine stores."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": "Why" + "?" * (row % 9)}) for row in range(300)))
    router = {"kind": kind, **({"path": "tests.routers.thirdparty:CountsQuestionMarks"} if kind == "import" else {})}
    job = JobSpec.model_validate(
        {
            "input": {"path": str(prompts)},
            "router": router,
            "models": [{"name": "small"}, {"name": "large"}],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": str(tmp_path / "results.jsonl")},
        }
    )
    stored = []
    for name, where in (("ray", engine), ("inline", InlineEngine(ENVIRONMENT, pause))):
        layout = Layout(tmp_path / name)
        (shard,) = find_shards(job.input, layout.spool, map=where.map)
        reading = ReadTask(layout, shard, job.input, "estimate", "large")
        scored = result_of(where, where.score(reading, ScoreTask(job, heavy=kind == "import")))
        where.stop_scoring()
        assert (scored.index, scored.rows, scored.invalid) == (0, 300, 0)
        stored.append(layout.scored(0).read_bytes())
    assert stored[0] == stored[1]


def test_one_actor_asks_an_embedders_endpoints(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One actor scores several shards, so that limits are held in one place; its pickled task has no key."""
    monkeypatch.setattr(engine, "_most_scorers", 4)
    (tmp_path / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": f"p{row}"}) for row in range(90)))
    with serve({"model": MODEL, "api_key_env": KEY_NAME}, environ={KEY_NAME: KEY}) as served:
        embedder = {"kind": "endpoint", "model": MODEL, "url": served.urls[0], "dimensions": DIMENSION}
        job = JobSpec.model_validate(
            {
                "input": {"path": str(tmp_path / "prompts.jsonl")},
                "router": {
                    "kind": "correctness",
                    "checkpoint": write_checkpoint(tmp_path / "checkpoint"),
                    "embedder": embedder | {"api_key_env": KEY_NAME},
                },
                "models": [{"name": "small"}, {"name": "large"}],
                "plan": {"strategy": "share", "strong": 0.5},
                "output": {"path": str(tmp_path / "results.jsonl")},
            }
        )
        layout = Layout(tmp_path / "run")
        (shard,) = find_shards(job.input, layout.spool, map=engine.map)
        readings = [ReadTask(layout, replace(shard, index=i), job.input, "estimate", "large") for i in range(3)]
        handles = [engine.score(reading, ScoreTask(job, heavy=True)) for reading in readings]
        assert len(engine._scorers) == 1
        assert KEY.encode() not in pickle.dumps(ScoreTask(job, heavy=True))
        for handle in handles:
            assert result_of(engine, handle).rows == 90
        engine.stop_scoring()
        assert sum(len(post["input"]) for post in served.posts) == 3 * 90


def test_the_dispatcher_is_fed_in_order_and_keeps_the_key_to_itself(
    engine: RayEngine, ledger: Ledger, tmp_path: Path
) -> None:
    """Shards are sent in the order in which they were fed; no file of the run and no log of Ray's has the key."""
    layout = Layout(tmp_path / "run")
    shards, rows = 12, 5
    for shard in range(shards):
        _route(layout, shard, range(shard * rows, (shard + 1) * rows))
    # One request at a time, so that the server sees the order.
    endpoint = EndpointSpec(url=ledger.url, model="m", api_key_env=KEY_NAME, limits=LimitsSpec(max_in_flight=1))
    plan = DispatchPlan(
        run_path=str(layout.path),
        models=(ModelSpec(name="m", endpoints=(endpoint,)),),
        prices={"m": None},
        spec=DispatchSpec(timeout_seconds=20),
        seed=0,
    )
    assert KEY.encode() not in pickle.dumps((plan, ENVIRONMENT))
    before = len(ledger)
    dispatcher = engine.dispatcher(plan)
    for shard in range(shards):
        dispatcher.feed([shard])
    dispatcher.close_feed()
    completed = _until_the_end(dispatcher)
    dispatcher.close()
    assert completed == list(range(shards))
    assert ledger.rows(before) == list(range(shards * rows))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in (*kept, *_logs()) if KEY.encode() in path.read_bytes()]


def test_log_records_of_the_dispatcher_reach_this_process(
    engine: RayEngine, ledger: Ledger, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The dispatcher runs in another process, while this one writes `--log-file`. No record has a prompt."""
    layout = Layout(tmp_path / "run")
    _route(layout, 0, range(3))
    models = (ModelSpec(name="m", endpoints=(EndpointSpec(url=ledger.url, model="m"),)),)
    plan = DispatchPlan(str(layout.path), models, {"m": None}, DispatchSpec(timeout_seconds=20), seed=0)
    with caplog.at_level(logging.DEBUG, "batchrouter"):
        dispatcher = engine.dispatcher(plan)
        dispatcher.feed([0])
        dispatcher.close_feed()
        assert _until_the_end(dispatcher) == [0]
        dispatcher.close()
    assert "the dispatcher has started with 1 models and 1 endpoints" in caplog.messages
    assert "the dispatcher has ended" in caplog.messages
    assert not [message for message in caplog.messages if "What is in row" in message]


def test_a_key_that_is_not_set_is_reported(engine: RayEngine, tmp_path: Path) -> None:
    """`poll` raises the dispatcher's own SpecError, not Ray's error for an actor that could not start."""
    endpoint = EndpointSpec(url="http://127.0.0.1:9/v1", model="m", api_key_env="NO_SUCH_KEY_IS_SET")
    plan = DispatchPlan(
        str(tmp_path), (ModelSpec(name="m", endpoints=(endpoint,)),), {"m": None}, DispatchSpec(), seed=0
    )
    dispatcher = engine.dispatcher(plan)
    with pytest.raises(SpecError, match="NO_SUCH_KEY_IS_SET is not set"):
        dispatcher.poll()
    dispatcher.close()


def test_a_local_cluster_listens_on_loopback_only_and_has_no_dashboard(engine: RayEngine) -> None:
    """No process of a local cluster can be reached from another machine."""
    assert result_of(engine, engine.submit(abs, -1)) == 1
    family = _family(os.getpid())
    assert {"gcs_server", "raylet", "ray::IDLE"} <= {Path(line.split()[0]).name for line in family.values()}
    addresses = [address for pid in family for address in _listening(pid)]
    assert addresses
    assert {address for address in addresses if address not in LOOPBACK} == set()
    assert not ray._private.worker._global_node.webui_url


def test_an_address_without_a_cluster_is_refused(tmp_path: Path) -> None:
    """The engine refuses it within seconds; Ray would try for a minute and then end the process."""
    with pytest.raises(SpecError, match="no Ray cluster answers there"):
        RayEngine(
            address="127.0.0.1:9",
            actors=1,
            environment=ENVIRONMENT,
            pause=pause,
            end_process=end_process,
            folders=ray_folders(),
        ).start()


def _route(layout: Layout, shard: int, rows: range) -> None:
    bodies = [b'{"messages":[{"role":"user","content":"What is in row %05d?"}]}' % row for row in rows]
    columns = {
        "row": pa.array(rows, pa.int64()),
        "url": pa.array(["/v1/chat/completions"] * len(rows)),
        "body": pa.array(bodies, pa.binary()),
        "prompt_tokens": pa.array([8] * len(rows), pa.int32()),
        "max_tokens": pa.array([None] * len(rows), pa.int32()),
    }
    write_part(layout.routed("m", shard), pa.table(columns))
    write_routing_record(layout, shard, RoutingRecord({"m": len(rows)}))


def _until_the_end(dispatcher: DispatchHandle) -> list[int]:
    """Poll until the dispatcher has ended; return the shards in the order in which they were completed."""
    completed: list[int] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        state: DispatchState = dispatcher.poll()
        assert state.error is None
        completed += state.completed
        if state.end is not None:
            return completed
        assert time.monotonic() < deadline
        pause(0.02)


def _logs() -> list[Path]:
    """The log files that Ray itself has written."""
    files = [path for path in Path(ray._private.worker._global_node.get_logs_dir_path()).rglob("*") if path.is_file()]
    assert files
    return files


def _family(pid: int) -> dict[int, str]:
    """A process and all its descendants: their command lines by pid."""
    processes = living()
    parents = {}
    for other in processes:
        try:
            parents[other] = int(Path(f"/proc/{other}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {member: processes[member] for member in found}


def _listening(pid: int) -> list[str]:
    """The addresses on which a process listens for TCP, as the kernel writes them; none if the process has ended."""
    inodes = set()
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:
        return []
    for descriptor in descriptors:
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[len("socket:[") : -1])
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENING and rest[5] in inodes:
                addresses.append(local.partition(":")[0])
    return addresses
