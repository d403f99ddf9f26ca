"""Opening, resuming, repairing and refusing run directories."""

import logging
import os
from pathlib import Path

import pytest

from batch.errors import DamagedError, FingerprintError, RunLockedError, SpecError
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import Fingerprint
from batch.runs.layout import Layout
from batch.runs.manifest import Sitting, is_run_directory, read_manifest
from batch.storage.lock import FileLock
from batch.storage.sealed import read_sealed
from schemas.plans import Plan

ASKED = Fingerprint({"seed": 0, "input.files": [["a.jsonl", 10, 5]]}, {"plan.strong": 0.5})


def opened(path: Path, asked: Fingerprint = ASKED, *, fresh: bool = False) -> RunDirectory:
    return RunDirectory.open(path, asked, job="job", created="2025-01-01T00:00:00Z", version="0.1.0", fresh=fresh)


def sent(path: Path) -> None:
    """Make a run directory with a run that has sent a request, and close it."""
    with opened(path) as run:
        run.layout.journals.mkdir()


def test_a_changed_job_begins_anew_where_nothing_was_sent(tmp_path: Path) -> None:
    """Until the first request is sent, a changed job takes over the run directory without `--fresh`.

    Old scores are removed. Embedding vectors, which were paid for, stay: each is stored under everything it depends on.
    """
    other = Fingerprint({**ASKED.parts, "seed": 1})
    with opened(tmp_path / "r") as run:
        run.layout.scored(0).parent.mkdir()
        run.layout.cache.mkdir()
    with opened(tmp_path / "r", other) as anew:
        assert anew.manifest.fingerprint == other.hash
        assert not anew.layout.scored(0).parent.exists()
        assert anew.layout.cache.exists()


def test_a_new_run_is_described_in_its_manifest(tmp_path: Path) -> None:
    """A new folder is private and has a manifest; reopened, it has the same manifest and what was added."""
    with opened(tmp_path / "deep" / "r") as run:
        assert run.manifest.fingerprint == ASKED.hash
        assert not run.plan_changed
        run.set_shards([{"index": 0, "rows": 7}])
        run.add_sitting(Sitting(wall=1.5, scoring=0.5))
        assert run.layout.path.stat().st_mode & 0o777 == 0o700
        assert run.layout.manifest.stat().st_mode & 0o777 == 0o600
    with opened(tmp_path / "deep" / "r") as again:
        assert again.manifest == run.manifest
        again.add_sitting(Sitting(wall=2))
        assert [s.wall for s in again.manifest.sittings] == [1.5, 2]
        assert again.manifest.shards == ({"index": 0, "rows": 7},)
        with pytest.raises(ValueError, match="once"):
            again.set_shards([])


def test_the_second_of_two_runs_is_refused(tmp_path: Path) -> None:
    """While a process has a run directory open, another is refused with the first one's process id."""
    with opened(tmp_path / "r"), pytest.raises(RunLockedError, match=rf"process {os.getpid()} works on it"):
        opened(tmp_path / "r")
    with opened(tmp_path / "r"), pytest.raises(RunLockedError):
        opened(tmp_path / "r", fresh=True)


def test_a_refused_open_holds_no_lock(tmp_path: Path) -> None:
    """After a refusal the lock is free again."""
    sent(tmp_path / "r")
    with pytest.raises(FingerprintError):
        opened(tmp_path / "r", Fingerprint({"seed": 1}))
    opened(tmp_path / "r").close()


def test_another_jobs_run_directory_is_refused(tmp_path: Path) -> None:
    """Another job is refused in one line, which names the keys that differ and what to do."""
    sent(tmp_path / "r")
    other = Fingerprint({**ASKED.parts, "seed": 1, "router.kind": "mf"})
    with pytest.raises(FingerprintError, match=r"differs in router\.kind, seed; --fresh") as caught:
        opened(tmp_path / "r", other)
    assert "\n" not in str(caught.value)


def test_fresh_keeps_the_old_run(tmp_path: Path) -> None:
    """`fresh` moves older runs to numbered folders, whole, and begins a new run."""
    with opened(tmp_path / "r") as first:
        first.write_plan(plan())
    for _ in range(2):
        with opened(tmp_path / "r", Fingerprint({"seed": 1}), fresh=True) as run:
            assert run.read_plan() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r", "r.1", "r.2"]
    assert read_manifest(Layout(tmp_path / "r.1")).fingerprint == ASKED.hash
    assert (tmp_path / "r.1" / "plan.json").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    """A folder with other things in it is refused, also with `fresh`; an empty one is taken."""
    (tmp_path / "thesis.tex").touch()
    for fresh in (False, True):
        with pytest.raises(SpecError, match=r"holds other things \(thesis.tex\).*output.run_dir"):
            opened(tmp_path, fresh=fresh)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "empty").mkdir()
    opened(tmp_path / "empty").close()
    with pytest.raises(SpecError, match="a file is in the way"):
        opened(tmp_path / "thesis.tex")


def test_a_run_that_died_before_its_manifest_is_begun_again(tmp_path: Path) -> None:
    """A folder with only a lock and a half-written manifest is taken for a new run."""
    (tmp_path / "run.lock").touch()
    (tmp_path / ".run.json.abc.tmp").write_text("{")
    with opened(tmp_path) as run:
        assert run.manifest.job == "job"


def test_an_unreadable_manifest_is_one_line(tmp_path: Path) -> None:
    """Broken JSON, another layout or no manifest at all is a SpecError that says what to do."""
    with pytest.raises(SpecError, match="is not a run directory"):
        read_manifest(Layout(tmp_path))
    opened(tmp_path / "r").close()
    manifest, copy = (tmp_path / "r" / name for name in ("run.json", "run.copy.json"))
    stored = read_sealed(manifest, "run.json")
    assert stored is not None
    manifest.write_bytes(stored.replace(b'"layout": 1', b'"layout": 99'))
    with pytest.raises(SpecError, match="has layout 99"):
        opened(tmp_path / "r")
    manifest.write_text("{")
    copy.write_text("{")
    with pytest.raises(SpecError, match="cannot be read, nor can its copy; put back one of them, or --fresh"):
        opened(tmp_path / "r")
    opened(tmp_path / "r", fresh=True).close()
    assert is_run_directory(tmp_path / "r")


def test_half_written_files_are_swept_when_a_run_goes_on(tmp_path: Path) -> None:
    """Temporary files of killed writers are removed when a run is opened; parts stay."""
    with opened(tmp_path / "r") as run:
        part = run.layout.scored(0)
        part.parent.mkdir()
        part.touch()
        (part.parent / ".00001.parquet.x.tmp").touch()
    with opened(tmp_path / "r"):
        assert list(part.parent.iterdir()) == [part]


def test_a_changed_plan_is_noticed_until_it_is_discarded(tmp_path: Path) -> None:
    """Discarding removes what the old plan decided and keeps scores and journals."""
    with opened(tmp_path / "r") as run:
        run.write_plan(plan())
        assert run.read_plan() == plan()
        layout = run.layout
        kept = [layout.scored(0), layout.journal(0, "m")]
        gone = [layout.routed("m", 0), layout.routing_record(0), layout.part(0, "jsonl"), layout.commit(0), layout.plan]
        for path in kept + gone:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    asked = Fingerprint(ASKED.parts, {"plan.strong": 0.4})
    with opened(tmp_path / "r", asked) as again:
        assert again.plan_changed
        again.discard_plan()
        assert again.manifest.plan == asked.plan
        assert all(path.exists() for path in kept)
        assert not any(path.exists() for path in gone)
    with opened(tmp_path / "r", asked) as later:
        assert not later.plan_changed
        assert later.read_plan() is None


@pytest.mark.parametrize("content", [None, b"", b"{", b"\0" * 40, b'{"strategy": "hope"}'])
def test_a_damaged_manifest_is_made_again_from_its_copy(tmp_path: Path, content: bytes | None) -> None:
    """A manifest that is missing, empty, zeroed or overwritten is restored from its copy, and noted for the report."""
    with opened(tmp_path / "r") as run:
        run.set_shards([{"index": 0, "rows": 7}])
        before, path = run.manifest, run.layout.manifest
    path.unlink() if content is None else path.write_bytes(content)
    with opened(tmp_path / "r") as again:
        assert again.manifest.shards == before.shards
        assert again.manifest.damage == ("run.json of the run directory was damaged or gone, and was made again",)
    path.with_name("run.copy.json").unlink()
    assert read_manifest(Layout(tmp_path / "r")) == again.manifest


def test_one_wrong_digit_in_a_manifest_is_noticed(tmp_path: Path) -> None:
    """A changed manifest is noticed even if it is still valid JSON with valid values."""
    with opened(tmp_path / "r") as run:
        run.set_shards([{"index": 0, "rows": 7}])
    path = tmp_path / "r" / "run.json"
    path.write_text(path.read_text().replace('"rows": 7', '"rows": 9'))
    with opened(tmp_path / "r") as again:
        assert again.manifest.shards == ({"index": 0, "rows": 7},)


@pytest.mark.parametrize("content", [None, b"", b'{"strategy": "hope"}'])
def test_a_damaged_plan_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    """A damaged plan is restored from the manifest; if an older version's manifest lacks it, it is solved again."""
    with opened(tmp_path / "r") as run:
        run.write_plan(plan())
        run.layout.plan.unlink() if content is None else run.layout.plan.write_bytes(content)
        assert run.read_plan() == plan()
        assert run.layout.plan.exists()
        assert run.manifest.damage
    with opened(tmp_path / "s") as run:
        run.layout.plan.write_bytes(content or b"{")
        assert run.read_plan() is None


def test_a_file_is_mended_once(tmp_path: Path) -> None:
    """A damaged file is removed and noted; the same file again, or one outside the run directory, is an error."""
    with opened(tmp_path / "r") as run:
        part = run.layout.scored(0)
        part.parent.mkdir()
        part.touch()
        damage = DamagedError("damaged", path=str(part))
        run.mend(damage)
        assert not part.exists()
        assert run.manifest.damage == (
            "scored/00000.parquet of the run directory was damaged or gone, and was made again",
        )
        with pytest.raises(DamagedError):
            run.mend(damage)
        with pytest.raises(DamagedError):
            run.mend(DamagedError("damaged", path=str(tmp_path / "elsewhere")))


def test_openings_and_damage_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has a line for a run that begins, is resumed, replaced or moved aside, and for a damaged file."""
    path = tmp_path / "r"
    with caplog.at_level(logging.INFO, "batchrouter.runs"):
        opened(path).close()
        with opened(path) as run:
            run.mend(DamagedError("plan.json is damaged", path=str(run.layout.plan)))
        opened(path, Fingerprint({**ASKED.parts, "seed": 1})).close()
        opened(path, fresh=True).close()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"{path}: began a new run"),
        ("INFO", f"{path}: resumed the run of 2025-01-01T00:00:00Z"),
        ("WARNING", "plan.json is damaged"),
        ("WARNING", f"{path}: plan.json of the run directory was damaged or gone, and was made again"),
        ("INFO", f"{path}: replaced the run, since the job has changed and no answer was paid for"),
        ("INFO", f"{path}: began a new run"),
        ("INFO", f"{path}: moved the older run to {path}.1"),
        ("INFO", f"{path}: began a new run"),
    ]


def test_a_lock_whose_file_was_moved_away_is_not_held(tmp_path: Path) -> None:
    """A process that opened the lock of a folder which was then moved aside gets the lock of the new folder."""
    (tmp_path / "a").mkdir()
    with FileLock(tmp_path / "a" / "lock", "a"):
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "a").mkdir()
        with FileLock(tmp_path / "a" / "lock", "a") as second:
            second.release()
        with pytest.raises(RunLockedError):
            FileLock(tmp_path / "b" / "lock", "b").acquire()


def plan() -> Plan:
    return Plan(strategy="share", weakest="a", strongest="b", cutoff=0.5)
