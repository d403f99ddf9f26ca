"""What `batchrouter train` prints, and what it refuses."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.exit_status import Exit
from tests.jobs.console_script import Command

Spec = dict[str, Any]


def written(spec: Spec, folder: Path) -> Path:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """A valid training file: labels of sums, which the small model gets wrong, and of animals, which it gets right."""
    texts = [f"How much is {i} plus {i}?" if i % 2 else f"Which animal is number {i}?" for i in range(80)]
    rows = [{"prompt": text, "s": "plus" not in text, "l": True} for text in texts]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    labels = {"kind": "judged", "path": "labels.jsonl", "models": {"small": "s", "large": "l"}}
    return {"kind": "static", "data": [labels], "validation": 0.4, "output": "made"}


def test_a_table_and_json_show_how_good_the_router_is(command: Command, spec: Spec, tmp_path: Path) -> None:
    """The table has figures beside baselines, warnings, and the checkpoint's path; paths are relative to the file."""
    path = written(spec, tmp_path)
    ended = command("train", path)
    assert ended.status == 0, ended.err
    for part in ("large and small", "mean quality", "word count", "Only 80 different prompts are labelled"):
        assert part in " ".join(ended.out.split()), part
    assert "made" in "".join(ended.out.split())  # a long path is folded
    assert (tmp_path / "made" / "weights.safetensors").exists()
    again = command("train", path, "--overwrite", "--json")
    assert again.status == 0, again.err
    report = json.loads(again.out)
    assert report["models"] == ["small", "large"]
    assert report["held_out"]["labels"]["apgr"] > report["held_out"]["labels"]["apgr_random"]
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["training"]["held_out"] == report["held_out"]


REFUSED: dict[str, tuple[Spec, str]] = {
    "an unknown key": ({"dta": []}, r"train\.yaml:\d+: dta: unknown key 'dta'; did you mean 'data'"),
    "an unknown kind": ({"kind": "knnn"}, r"kind: .*'knnn'"),
    "no data": ({"data": []}, r"data: must have at least 1 item, not 0$"),
    "one model": ({"models": ["small"]}, r"models: must have at least 2 items, not 1$"),
    "an unknown kind of data": (
        {"data": [{"kind": "judgd"}]},
        r"data\.0: unknown kind 'judgd' \(did you mean 'judged'",
    ),
    "one model twice": ({"models": ["small", "small"]}, r"models: 'small' is given twice"),
    "an embedder for none": ({"kind": "static", "embedder": {"layer": 1}}, r"embedder is for mf, correctness, knn"),
    "no base": ({"kind": "bert"}, r"bert needs fine_tuning, with the base model"),
    "fine-tuning for none": (
        {"fine_tuning": {"base": "x"}},
        r"fine_tuning is for bert, causal_llm; leave it out of static",
    ),
    "a layer that is not there": ({"kind": "knn", "embedder": {"layer": 99}}, r"it has 6 layers, not 99"),
    "a weakest that is better": ({"models": ["large", "small"]}, r"data: small is no better than large"),
    "a model that nobody judged": ({"models": ["small", "huge"]}, r"models: 'huge' is nowhere in data"),
    "no file": (
        {"data": [{"kind": "judged", "path": "no.jsonl", "models": {"a": "s"}}]},
        r"no\.jsonl: no such file; check data\.0\.path",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_fault_is_one_line_and_leaves_nothing(case: str, command: Command, spec: Spec, tmp_path: Path) -> None:
    """The status is 2, one line says what is wrong and where, and no folder is left."""
    changes, said = REFUSED[case]
    before = set(tmp_path.iterdir())
    ended = command("train", written(spec | changes, tmp_path))
    assert ended.status == 2, ended.out
    (fault,) = ended.faults
    assert re.search(said, fault), fault
    assert set(tmp_path.iterdir()) - before == {tmp_path / "train.yaml"}


def test_an_existing_checkpoint_is_kept(command: Command, spec: Spec, tmp_path: Path) -> None:
    """Without --overwrite the command is refused; `--set` gives another output, relative to the current folder."""
    path = written(spec, tmp_path)
    assert command("train", path).status == 0
    ended = command("train", path)
    assert ended.status == 2
    assert "holds a checkpoint; --overwrite replaces it" in ended.err
    other = command("train", path, "--set", f"output={tmp_path / 'other'}")
    assert other.status == 0, other.err
    assert (tmp_path / "other" / "README.md").exists()


@pytest.mark.real
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_training_as_ctrl_c_does(number: signal.Signals, spec: Spec, tmp_path: Path) -> None:
    """The status is 130, the last line says how to start over, and no hidden folder is left beside the output."""
    rows = [{"prompt": f"{i} {'plus' if i % 2 else 'or'} {3 * i}", "s": i % 2, "l": 1} for i in range(20_000)]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = written(spec, tmp_path)
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "jobs.cli", "train", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 60
            while set(tmp_path.iterdir()) == before:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == Exit.INTERRUPTED
    assert said.splitlines()[-1] == (
        "batchrouter: interrupted; rerun the same command to start over, "
        "keeping what judges and embedders have answered"
    )
    assert set(tmp_path.iterdir()) == before


def test_folders_of_a_killed_training_are_removed(command: Command, spec: Spec, tmp_path: Path) -> None:
    """The next training for the same output removes them, and puts back a checkpoint that was about to be replaced."""
    path = written(spec, tmp_path)
    assert command("train", path).status == 0
    left = tmp_path / ".made.x1.tmp"
    left.mkdir()
    (tmp_path / "made").rename(left / "old")
    ended = command("train", path)
    assert "holds a checkpoint; --overwrite replaces it" in ended.err
    assert (tmp_path / "made" / "weights.safetensors").exists()
    assert not left.exists()


def test_an_output_that_cannot_be_written_is_refused_first(command: Command, spec: Spec, tmp_path: Path) -> None:
    """The output is checked before labels are read and judges are paid: the labels here do not exist."""
    (tmp_path / "labels.jsonl").unlink()
    (tmp_path / "file").touch()
    ended = command("train", written(spec | {"output": "file/made"}, tmp_path))
    assert ended.status == Exit.STOPPED
    (fault,) = ended.faults
    assert re.search(
        r"cannot write .*file: Not a directory; once that is mended, rerun the same command to start over$", fault
    )
