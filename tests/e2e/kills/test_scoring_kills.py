"""Scoring actors that die, on real Ray: what becomes of their batches."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from batch.runs.parts import read_part
from jobs.commands.run import run_job
from jobs.files.yaml_specs import load_job
from tests.e2e.commands import Command
from tests.e2e.kills.scoring_router import LETHAL
from tests.rehearsed import serve

pytestmark = pytest.mark.real

FILES = 10
ROWS_PER_FILE = 10
ROWS = FILES * ROWS_PER_FILE
STOPPED = 3


def write_job(folder: Path, url: str, router: str, *, lethal: bool = False) -> Path:
    """A job of ten shards; scored by two actors, each of which writes what it does into `watched`."""
    (folder / "watched").mkdir(parents=True)
    for file in range(FILES):
        prompts = [f"row {row}" for row in range(file * ROWS_PER_FILE, (file + 1) * ROWS_PER_FILE)]
        if lethal and file == FILES // 2:
            prompts[0] = LETHAL
        lines = [json.dumps({"id": prompt, "prompt": prompt}) for prompt in prompts]
        (folder / f"prompts-{file:02}.jsonl").write_text("\n".join(lines))
    job = {
        "input": {"path": "prompts-*.jsonl"},
        "router": {
            "kind": "import",
            "path": f"tests.e2e.kills.scoring_router:{router}",
            "options": {"folder": str(folder / "watched")},
            "actors": 2,
        },
        "models": [{"name": name, "endpoints": [{"url": url, "model": "m"}]} for name in ("small", "large")],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def scored_rows(folder: Path) -> list[tuple[int, float]]:
    """Rows and scores of all stored parts."""
    parts = sorted((folder / "results.jsonl.run" / "scored").glob("*.parquet"))
    tables = [read_part(part, ["row", "score"]) for part in parts]
    return [
        (row, score) for t in tables for row, score in zip(t["row"].to_pylist(), t["score"].to_pylist(), strict=True)
    ]


def decided(folder: Path) -> list[tuple[Any, ...]]:
    """What the results say of each row."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return [(row["row"], row["id"], row["status"], row["model"], row["score"]) for row in rows]


def test_a_killed_actors_batch_is_scored_again_and_no_row_twice(tmp_path: Path) -> None:
    """SIGKILL in the middle of a batch: every row has one score, that of an undisturbed run, and the same model."""
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with serve({"model": "m", "answers": "echo"}) as served:
        command = Command(write_job(broken, served.urls[0], "WatchedRouter"), tmp_path / "said")
        watched = broken / "watched"

        def under_way() -> list[str]:
            ends = {note.name.removeprefix("done-") for note in watched.glob("done-*")}
            begun = [note.name.removeprefix("begun-") for note in watched.glob("begun-*")]
            return [note for note in begun if note not in ends] if ends else []

        try:
            command.until(lambda: bool(under_way()))
            (lost, *_) = under_way()
            killed, prompt = lost.split("-")
            os.kill(int(killed), signal.SIGKILL)
            assert len(scored_rows(broken)) < ROWS, "it was killed too late to say anything"
            assert command.wait() == 0, command.stderr
        finally:
            command.kill_all()
        assert not (watched / f"done-{lost}").exists()
        again = {note.name.split("-")[1] for note in watched.glob(f"done-*-{prompt}")}
        assert len(again) == 1
        assert again != {killed}
        assert set(served.prompts().values()) == {1}
        run_job(load_job(write_job(whole, served.urls[0], "WatchedRouter"), ["engine=inline"]))
    assert [row for row, _ in scored_rows(broken)] == list(range(ROWS))
    assert scored_rows(broken) == scored_rows(whole)
    assert decided(broken) == decided(whole)


def test_a_batch_that_kills_every_actor_ends_the_run(tmp_path: Path) -> None:
    """It is not tried for ever: the run stops with 3 and one line, and what others scored is stored."""
    with serve({"model": "m", "answers": "echo"}) as served:
        command = Command(write_job(tmp_path / "job", served.urls[0], "LethalRouter", lethal=True), tmp_path / "said")
        try:
            assert command.wait() == STOPPED, command.stderr
        finally:
            command.kill_all()
        assert served.posts == []
    (said,) = [line for line in command.stderr.splitlines() if line.startswith("batchrouter: ")]
    assert "rerun the same command to resume" in said
    assert 1 < len(list((tmp_path / "job" / "watched").glob("died-*"))) < 10
    assert scored_rows(tmp_path / "job")
