"""A cluster of several nodes that was there before the run: scoring on all of them, and one that is killed."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled, and its stub names few of its classes
from ray.cluster_utils import Cluster

from batch.errors import SpecError
from batch.running.ray.engine import RayEngine
from batch.running.ray.key_server import AskedKeys, KeyServer
from jobs.environment import ENVIRONMENT, end_process, pause, ray_folders
from tests.e2e.commands import Command
from tests.rehearsed import serve

pytestmark = pytest.mark.real

FILES = 12
ROWS_PER_FILE = 10
ROWS = FILES * ROWS_PER_FILE
KEY_NAME = "NODES_TEST_KEY"
KEY = "sk-9876543210-never-to-be-seen"
# Where Ray's control service keeps code, packages and environments.
NAMESPACES = (None, b"fun", b"package", b"session", b"cluster", b"job", b"serve")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that takes no work itself, as heads often do; the run directory is on it. Two nodes more."""
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        # Apart from whatever else Ray does on this machine; sockets are made in it, whose paths must be short.
        environment.setenv("RAY_TMPDIR", folder)
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                running.add_node(num_cpus=1)
            yield running
        finally:
            running.shutdown()


def write_job(folder: Path, url: str, address: str) -> Path:
    """A job of twelve shards, a router that loads something, and one endpoint that asks for a key."""
    for file in range(FILES):
        rows = range(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE)
        lines = [json.dumps({"id": f"r{row}", "prompt": f"row {row}" + " word" * (row % 7)}) for row in rows]
        (folder / f"prompts-{file:02}.jsonl").write_text("\n".join(lines))
    (folder / "nodes").mkdir()
    endpoint = {"url": url, "model": "m", "api_key_env": KEY_NAME}
    job = {
        "ray": {"address": address},
        "input": {"path": "prompts-*.jsonl"},
        "router": {
            "kind": "import",
            "path": "tests.e2e.node_router:SlowRouter",
            "options": {"folder": str(folder / "nodes")},
            "actors": 2,
        },
        "models": [{"name": name, "endpoints": [endpoint]} for name in ("small", "large")],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def test_a_node_that_is_killed_loses_nothing_and_no_key_is_left_anywhere(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nodes score with code that came with the run; one dies, and every row is sent once and comes out in order.

    The key is in the environment of the command alone. It reaches the dispatcher, and nothing that is stored or shown.
    """
    monkeypatch.setenv(KEY_NAME, KEY)
    with serve({"model": "m", "answers": "echo", "api_key_env": KEY_NAME}, environ={KEY_NAME: KEY}) as served:
        command = Command(write_job(tmp_path, served.urls[0], cluster.address), tmp_path / "said")
        at_work, scored = tmp_path / "nodes", tmp_path / "results.jsonl.run" / "scored"

        def scoring() -> list[Any]:
            return [node for node in cluster.worker_nodes if (at_work / node.node_id).exists()]

        try:
            command.until(lambda: bool(scoring()))
            (killed, *_) = scoring()
            cluster.remove_node(killed, allow_graceful=False)
            assert len(list(scored.glob("*.parquet"))) < FILES, "it was killed too late to say anything"
            assert command.wait() == 0, command.stderr
        finally:
            command.kill_all()
        rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
        assert [(row["row"], row["id"], row["status"]) for row in rows] == [(i, f"r{i}", "ok") for i in range(ROWS)]
        assert set(served.prompts().values()) == {1}
        assert Counter(row["model"] for row in rows) == {"small": ROWS // 2, "large": ROWS // 2}
    brought = {node.name: node.read_text() for node in at_work.iterdir()}
    assert brought.keys() > {killed.node_id}
    assert cluster.head_node.node_id not in brought
    assert set(brought.values()) == {"batch schemas"}
    holders = [name for name, content in everything(cluster, tmp_path) if KEY.encode() in content]
    assert holders == []


def test_a_node_that_is_not_this_machine_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot reach this process cannot write its run directory: that is said before anything starts."""

    class OutOfReach(KeyServer):
        def start(self) -> None:
            super().start()
            self.keys = AskedKeys("/nowhere/keys")

    monkeypatch.setattr("batch.running.ray.engine.KeyServer", OutOfReach)
    with pytest.raises(SpecError, match="this is no node of that cluster"):
        RayEngine(
            address=cluster.address,
            actors=1,
            environment=ENVIRONMENT,
            pause=pause,
            end_process=end_process,
            folders=ray_folders(),
        ).start()


def everything(cluster: Cluster, folder: Path) -> Iterable[tuple[str, bytes]]:
    """What the run and Ray have written down: files and, of Ray's control service, tables."""
    files = [path for place in (folder, Path(cluster.head_node.get_session_dir_path())) for path in place.rglob("*")]
    for path in files:
        if path.is_file():
            yield str(path), path.read_bytes()
    control = GcsClient(address=cluster.address)
    for namespace in NAMESPACES:
        for name in control.internal_kv_keys(b"", namespace=namespace):
            yield repr(name), name + (control.internal_kv_get(name, namespace=namespace) or b"")
    yield "jobs", str(control.get_all_job_info()).encode()
