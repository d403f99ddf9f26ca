"""Ray's own processes, killed while a run needs them."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import PATIENCE_SECONDS, Command
from tests.e2e.kills.harness import complaint
from tests.rehearsed import serve

pytestmark = pytest.mark.real

ROWS = 60
OK = 0
STOPPED = 3

LINE = "has died, as it may when memory runs out; rerun the same command to resume"


def write_job(folder: Path, url: str) -> Path:
    """Two files of rows for one slow endpoint."""
    for file in range(2):
        lines = [
            json.dumps({"id": f"r{row}", "prompt": f"row {row}"})
            for row in range(file * ROWS // 2, (file + 1) * ROWS // 2)
        ]
        (folder / f"prompts-{file}.jsonl").write_text("\n".join(lines))
    endpoint = {"url": url, "model": "m", "limits": {"max_in_flight": 4}}
    job = {
        "input": {"path": "prompts-*.jsonl"},
        "router": {"kind": "random"},
        "models": [{"name": name, "endpoints": [endpoint]} for name in ("small", "large")],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def pid_of(command: Command, name: str) -> int | None:
    """A process of the command's by what is in the first word of its command line."""
    return next((pid for pid, line in command.processes().items() if name in line.split(" --")[0]), None)


def answered(folder: Path) -> int:
    """Lines in the journals: two for each row that is answered, and a header each."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "results.jsonl.run").glob("journal/*/*.jsonl"))


@pytest.fixture
def url() -> Iterator[str]:
    with serve({"model": "m", "answers": "echo", "latency": {"median_seconds": 0.3}}) as served:
        yield served.urls[0]


@pytest.mark.parametrize("name", ["raylet/raylet", "gcs_server", "ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_a_run_whose_ray_dies_stops_with_one_line_and_goes_on(tmp_path: Path, url: str, name: str) -> None:
    """SIGKILL while rows are answered: status 3 and one line; a second command ends it, each row once."""
    job = write_job(tmp_path, url)
    command = Command(job, tmp_path / "said")
    try:
        command.until(lambda: answered(tmp_path) > ROWS // 2)
        pid = pid_of(command, name)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        assert command.wait() == STOPPED, command.stderr
        ours = [line for line in complaint(command.stderr) if line.startswith("batchrouter: ")]
        assert len(ours) == 1, command.stderr
        assert ours[0].endswith(LINE)
        assert "Traceback" not in command.stderr
        assert command.leaves_nothing(PATIENCE_SECONDS)
    finally:
        command.kill_all()
    # In this process: how a run on Ray goes on is another test's, and the same whatever died.
    again = Command(job, tmp_path / "again", "engine=inline")
    assert again.wait() == OK, again.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert Counter(row["id"] for row in results) == Counter(f"r{row}" for row in range(ROWS))
    assert {row["status"] for row in results} == {"ok"}
