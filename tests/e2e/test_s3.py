"""The command with its output on an object store: killed, refused, done again."""

import json
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from typer.testing import CliRunner

import jobs
from jobs.cli import app
from tests.e2e.commands import Command
from tests.e2e.object_store import BUCKET, SECRET, ObjectStore, object_store
from tests.job_folder import ENDPOINTS
from tests.rehearsed import Served, serve

pytestmark = pytest.mark.real

FILES = 5
ROWS_PER_FILE = 4
ROWS = FILES * ROWS_PER_FILE

# Looking whether the store can be written is five requests, and uploading a part or the manifest is three.
PROBE_REQUESTS = 5
REQUESTS = PROBE_REQUESTS + 3 * (FILES + 1)
RANDOM_KILLS = 3


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store() as (running, environ), pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        yield running


class RemoteRun:
    """A job of five shards that is started again and again, with its output in a folder of the bucket."""

    def __init__(self, folder: Path, served: Served, path: str) -> None:
        self.folder = folder
        self.starts = 0
        for file in range(FILES):
            rows = range(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE)
            lines = [json.dumps({"id": f"r{row}", "prompt": f"prompt {row}"}) for row in rows]
            (folder / f"prompts-{file}.jsonl").write_text("\n".join(lines))
        job = {
            "engine": "inline",
            "input": {"path": "prompts-*.jsonl"},
            "router": {"kind": "random"},
            "models": [{"name": "small", "endpoints": [{"url": served.urls[0]}]}],
            "output": {"path": f"s3://{BUCKET}/{path}"},
        }
        (folder / "job.yaml").write_text(json.dumps(job))

    def start(self, *settings: str) -> Command:
        """The same command, every time."""
        self.starts += 1
        return Command(self.folder / "job.yaml", self.folder / f"start-{self.starts}", *settings)

    def end(self, *settings: str) -> dict[str, Any]:
        """Start it, let it come to its end, and read its report."""
        command = self.start(*settings)
        assert command.wait() == 0, command.stderr
        return dict(json.loads(command.stdout))

    def start_and_kill(self, store: ObjectStore, at: int) -> bool:
        """Start it and have it killed at that request; `False`: it came to its end before."""
        command = self.start()
        command.until(lambda: bool(command.processes()))
        (process,) = command.processes()
        store.signal(at, signal.SIGKILL, process)
        status = command.wait()
        store.obey()
        assert status in (0, -signal.SIGKILL), command.stderr
        return status != 0


def rows_of(objects: dict[str, bytes]) -> list[dict[str, Any]]:
    """The rows that a reader of the manifest sees; every part is as the manifest says."""
    manifest = json.loads(objects["_manifest.json"])
    for part in manifest["parts"]:
        assert sha256(objects[part["name"]]).hexdigest() == part["sha256"]
    return [json.loads(line) for part in manifest["parts"] for line in objects[part["name"]].splitlines()]


def test_a_run_killed_while_it_uploads_ends_with_the_same_objects(store: ObjectStore, tmp_path: Path) -> None:
    """Killed at random requests and around the manifest, it sends no row again; readers see a whole output or the one
    before; and in the end the objects are those of an upload that nobody disturbed.
    """
    older, folder = tmp_path / "older", tmp_path / "run"
    older.mkdir()
    folder.mkdir()
    with serve(*ENDPOINTS[:1]) as served:
        RemoteRun(older, served, "out/").end()
        served.forget()
        run = RemoteRun(folder, served, "out/")
        somewhere = Random(4).sample(range(PROBE_REQUESTS + 1, REQUESTS), RANDOM_KILLS)
        killed = 0
        for at in (*sorted(somewhere), *range(PROBE_REQUESTS + 1, PROBE_REQUESTS + 5)):
            killed += run.start_and_kill(store, at)
            objects = store.objects("out")
            assert [row["id"] for row in rows_of(objects)] == [f"r{row}" for row in range(ROWS)]
        assert killed >= RANDOM_KILLS
        report = run.end()
        objects = store.objects("out")
        manifest = json.loads(objects["_manifest.json"])
        assert manifest["fingerprint"] == report["fingerprint"]
        assert set(objects) == {"_manifest.json", *(part["name"] for part in manifest["parts"])}
        run.end(f"output.path=s3://{BUCKET}/again/", f"output.run_dir={folder}/out.run")
        assert store.objects("again") == objects
        assert len(served.posts) == ROWS
    assert report["output"] == f"s3://{BUCKET}/out/"


def test_refusals_are_one_line_and_cost_nothing(store: ObjectStore, tmp_path: Path) -> None:
    """Without a bucket it is status 2 and nothing is sent; refused at the end it is status 3, and the same command
    uploads what was paid for. The secret is nowhere.
    """
    with serve(*ENDPOINTS[:1]) as served:
        run = RemoteRun(tmp_path, served, "results.jsonl")
        command = run.start(f"output.path=s3://no-{BUCKET}/results.jsonl")
        assert command.wait() == 2
        assert command.stderr.startswith(f"batchrouter: output.path s3://no-{BUCKET}/results.jsonl cannot be written: ")
        assert len(command.stderr.splitlines()) == 1
        assert served.posts == []

        command = run.start()
        store.refuse(PROBE_REQUESTS)
        assert command.wait() == 3
        assert command.stderr.endswith("then rerun the same command to resume\n")
        assert "Traceback" not in command.stderr
        assert "results.jsonl" not in store.objects()
        run.end()
        rows = [json.loads(line) for line in store.objects()["results.jsonl"].splitlines()]
        assert [row["row"] for row in rows] == list(range(ROWS))
        assert len(served.posts) == ROWS
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [content for content in kept if SECRET.encode() in content]


def test_a_run_whose_output_is_elsewhere_is_looked_at_here_and_started_over(store: ObjectStore, tmp_path: Path) -> None:
    """Status and report read the run directory, which is beside the job; `--fresh` pays again, keeps that directory,
    and the results in the bucket are then the new run's.
    """
    with serve(*ENDPOINTS[:1]) as served:
        run = RemoteRun(tmp_path, served, "looked-at.jsonl")
        report = run.end()
        (kept,) = tmp_path.glob("*.run")
        status, stored = (CliRunner().invoke(app, [command, str(kept), "--json"]) for command in ("status", "report"))
        assert json.loads(status.stdout)["statuses"] == {"ok": ROWS}
        assert json.loads(stored.stdout) == report
        again = jobs.run(tmp_path / "job.yaml", fresh=True)
        assert len(served.posts) == 2 * ROWS
        assert again.rows.ok == ROWS
        assert again.output == report["output"]
        assert json.loads(store.objects()["looked-at.jsonl"].splitlines()[-1])["row"] == ROWS - 1
        assert len(list(tmp_path.glob("*.run*"))) == 2
