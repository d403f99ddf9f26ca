"""Runs on Ray where folders that it would use by itself cannot be used."""

import json
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Command
from tests.rehearsed import serve

pytestmark = pytest.mark.real

ROWS = 30
OK = 0


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Path]:
    lines = [json.dumps({"prompt": f"row {row}"}) for row in range(ROWS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    with serve({"model": "m", "answers": "echo", "latency": {"median_seconds": 0.2}}) as served:
        spec = {
            "input": {"path": "prompts.jsonl"},
            "router": {"kind": "random"},
            "models": [
                {"name": name, "endpoints": [{"url": served.urls[0], "model": "m", "limits": {"max_in_flight": 2}}]}
                for name in ("small", "large")
            ],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": "results.jsonl"},
        }
        path = tmp_path / "job.yaml"
        path.write_text(json.dumps(spec))
        yield path


def test_a_run_needs_no_home_folder_and_leaves_nothing_in_its_place_for_sockets(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HOME cannot be made, TMPDIR is too long for sockets: RAY_TMPDIR serves, closed to others while the run lasts."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        long = tmp_path / ("long" * 20)
        long.mkdir()
        monkeypatch.setenv("HOME", "/proc/nobody")
        monkeypatch.setenv("TMPDIR", str(long))
        monkeypatch.setenv("RAY_TMPDIR", place)
        command = Command(job, tmp_path / "said")
        try:
            command.until(lambda: any(Path(place).iterdir()))
            (folder,) = Path(place).iterdir()
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert command.wait() == OK, command.stderr
        finally:
            command.kill_all()
        assert list(Path(place).iterdir()) == []
        assert list(long.iterdir()) == []
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == ROWS


def test_what_a_killed_run_left_goes_with_the_next(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL leaves the folder behind; the same command removes it and its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        command = Command(job, tmp_path / "killed")
        try:
            command.until(lambda: any((tmp_path / "results.jsonl.run").glob("journal/*/*.jsonl")))
            command.kill_driver()
        finally:
            # Its processes end by themselves too, but not while the next run waits for it.
            command.kill_all()
        assert len(list(Path(place).iterdir())) == 1
        again = Command(job, tmp_path / "again")
        assert again.wait() == OK, again.stderr
        assert list(Path(place).iterdir()) == []
