"""The run directory: opened by one process at a time, and only for the job it was made for."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Any
from zlib import crc32

from pydantic import ValidationError

from batch.errors import DamagedError, FingerprintError, SpecError
from batch.runs.fingerprint import INPUT_FILES, Fingerprint, changed, changed_files
from batch.runs.layout import Layout
from batch.runs.manifest import Manifest, Sitting, is_damaged, is_run_directory, read_manifest, write_manifest
from batch.runs.nothing_paid import nothing_paid
from batch.storage.atomic import is_temporary, make_folder, storage_error, sync, write_bytes
from batch.storage.checksums import Checksum
from batch.storage.lock import FileLock
from batch.storage.sealed import read_sealed, write_sealed
from schemas.plans import Plan

_log = logging.getLogger("batchrouter.runs")

_MADE_AGAIN = "%s of the run directory was damaged or gone, and was made again"

# A message that names more keys than this on one line helps no reader.
_KEYS_SHOWN = 8


class RunDirectory:
    """A run directory that this process alone may change.

    Attributes:
        layout: where its files are.
        manifest: what the run is; kept in step with `run.json`.
        input_changed: does the input differ from the one that the run began with? Set only if `open` was told
            `keep_input`, since it refuses such a job otherwise.
        plan_changed: does the job ask for another plan than the one that `plan.json` and the routed parts came from?
    """

    def __init__(self, layout: Layout, manifest: Manifest, asked: Fingerprint, lock: FileLock) -> None:
        self.layout = layout
        self.manifest = manifest
        self._asked = asked
        self._lock = lock
        self._mended: set[str] = set()
        self.input_changed = False

    @classmethod
    def open(
        cls,
        path: Path,
        asked: Fingerprint,
        *,
        job: str,
        created: str,
        version: str,
        fresh: bool = False,
        keep_input: bool = False,
    ) -> "RunDirectory":
        """Create the run directory, or open the one that is there in order to resume its run. Takes its lock.

        Args:
            path: the folder; it is made, with its parents, if it is missing.
            asked: fingerprint of the job as it is now.
            job: the job's name.
            created: now, ISO 8601; stored only if the run is new.
            version: of batchrouter; stored only if the run is new.
            keep_input: accept an input that differs from the one that the run began with. For `--finish`, which reads
                none of it.
            fresh: rename an older run to `<path>.<n>`, where it is kept, and begin a new one.

        Raises:
            SpecError: `path` is something other than a run directory; it is left alone.
            RunLockedError: another process works on it.
            FingerprintError: it belongs to a job whose answers would differ.
            StorageError: it cannot be written.
        """
        path = path.absolute()
        layout = Layout(path)
        lock = _lock_own(layout)
        try:
            if fresh and is_run_directory(path):
                _move_aside(path)
                lock.release()
                lock = _lock_own(layout)
            manifest = read_manifest(layout) if is_run_directory(path) else None
            began = _with_the_input_of(manifest, asked) if keep_input else asked
            input_changed, asked = began != asked, began
            manifest = None if manifest is None else _to_resume(layout, manifest, asked)
            if manifest is None:
                parts, plan = dict(asked.parts), dict(asked.plan)
                manifest = Manifest(
                    job=job, created=created, batchrouter=version, fingerprint=asked.hash, parts=parts, plan=plan
                )
                write_manifest(layout, manifest)
                _log.info("%s: began a new run", path)
        except BaseException:
            lock.release()
            raise
        directory = cls(layout, manifest, asked, lock)
        directory.input_changed = input_changed
        return directory

    @property
    def plan_changed(self) -> bool:
        return bool(changed(self.manifest.plan, self._asked.plan))

    def set_shards(self, shards: Sequence[Mapping[str, Any]]) -> None:
        """Store the shards. They are set once, because the run's other files are named by the index of a shard."""
        if self.manifest.shards is not None:
            raise ValueError("the shards of a run are set once")
        self._store(shards=tuple(dict(shard) for shard in shards))

    def add_sitting(self, sitting: Sitting) -> None:
        """Store how long this process worked on the run."""
        self._store(sittings=(*self.manifest.sittings, sitting))

    def read_plan(self) -> Plan | None:
        """The solved plan; `None` if the run has none yet. A damaged `plan.json` is restored from the manifest.

        Raises StorageError.
        """
        path = self.layout.plan
        try:
            raw = read_sealed(path, self.layout.place(path))
            plan = None if raw is None else Plan.model_validate_json(raw)
        except (DamagedError, ValidationError):
            plan = None
        if plan is None and self.manifest.solved is not None:
            plan = self.manifest.solved
            self._note_damage(path.name)
            self._write_plan(plan)
        return plan

    def write_plan(self, plan: Plan) -> None:
        """Store the solved plan, atomically."""
        self._write_plan(plan)
        self._store(solved=plan)

    def _write_plan(self, plan: Plan) -> None:
        path = self.layout.plan
        write_sealed(path, self.layout.place(path), plan.model_dump_json(indent=2).encode())

    def write_report(self, report: bytes, page: bytes) -> None:
        """Store the report as JSON and as a page, each atomically. Raises StorageError."""
        write_bytes(self.layout.report, report)
        write_bytes(self.layout.report_html, page)
        self._store(report=Checksum(len(report), crc32(report)))

    def mend(self, damage: DamagedError) -> None:
        """Remove a damaged file, so that the run makes it again, and store a note for the report.

        Raises:
            DamagedError: the file is not in this run directory, or this process has removed it once before: then the
                disk cannot be trusted.
            StorageError: it cannot be removed.
        """
        path = Path(damage.path)
        if not path.is_relative_to(self.layout.path) or damage.path in self._mended:
            raise damage
        self._mended.add(damage.path)
        _log.warning("%s", damage)
        self._note_damage(self.layout.place(path))
        try:
            path.unlink(missing_ok=True)
            sync(path.parent)
        except OSError as error:
            raise storage_error(path, error, "remove") from error

    def discard_report(self) -> None:
        """Remove the report of an earlier sitting, because the run goes on. Raises StorageError."""
        try:
            self.layout.report.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.layout.report, error, "remove") from error

    def discard_plan(self) -> None:
        """Remove everything that follows from an older plan: the plan, routed parts, results. Scores and journals stay.

        The manifest changes last, so that a run that is killed in the middle does this again when it is resumed.

        Raises StorageError.
        """
        layout = self.layout
        files = (layout.commit(0), layout.part(0, "any"), layout.routing_record(0), layout.routed("any", 0).parent)
        try:
            for file in files:
                if file.parent.exists():
                    rmtree(file.parent)
            layout.plan.unlink(missing_ok=True)
            sync(layout.path)
        except OSError as error:
            raise storage_error(layout.path, error) from error
        self._store(plan=dict(self._asked.plan), solved=None)

    def close(self) -> None:
        """Release the lock, so that another process may work on the run."""
        self._lock.release()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_damage(self, place: str) -> None:
        note = _MADE_AGAIN % place
        _log.warning("%s: %s", self.layout.path, note)
        self._store(damage=(*self.manifest.damage, note))

    def _store(self, **changes: Any) -> None:
        self.manifest = self.manifest.model_copy(update=changes)
        write_manifest(self.layout, self.manifest)


def _to_resume(layout: Layout, manifest: Manifest, asked: Fingerprint) -> Manifest | None:
    """The manifest of the run that is resumed; `None` if a new run may take its place.

    Raises:
        FingerprintError: the run belongs to a job whose answers would differ.
        StorageError: a file cannot be read, written or removed.
    """
    if changed(manifest.parts, asked.parts) and nothing_paid(layout):
        # No answer was paid for, so none is lost: a user who mends a refused job need not ask for --fresh.
        _log.info("%s: replaced the run, since the job has changed and no answer was paid for", layout.path)
        _clear(layout)
        return None
    _refuse_other_job(layout.path, manifest, asked)
    _sweep(layout)
    manifest = _restored_if_damaged(layout, manifest)
    _log.info("%s: resumed the run of %s", layout.path, manifest.created)
    return manifest


def _restored_if_damaged(layout: Layout, manifest: Manifest) -> Manifest:
    """The manifest, with a note if `run.json` is damaged and was read from its copy; both are sound afterwards."""
    if not is_damaged(layout):
        return manifest
    note = _MADE_AGAIN % layout.manifest.name
    _log.warning("%s: %s", layout.path, note)
    noted = manifest.model_copy(update={"damage": (*manifest.damage, note)})
    write_manifest(layout, noted)
    return noted


def _with_the_input_of(manifest: Manifest | None, asked: Fingerprint) -> Fingerprint:
    """The job's fingerprint, but with the run's input files if these are all that differs between job and run."""
    if manifest is None or changed(manifest.parts, asked.parts) != [INPUT_FILES]:
        return asked
    return replace(asked, parts={**asked.parts, INPUT_FILES: manifest.parts[INPUT_FILES]})


def _lock_own(layout: Layout) -> FileLock:
    """Lock the folder if it is a run directory, or is empty or missing and can become one."""
    path = layout.path
    try:
        make_folder(path)
        foreign = [
            entry
            for entry in path.iterdir()
            if entry not in (layout.run_lock, layout.manifest, layout.manifest_copy) and not is_temporary(entry)
        ]
    except (FileExistsError, NotADirectoryError) as error:
        raise SpecError(f"run directory {path}: a file is in the way; choose another output.run_dir") from error
    except OSError as error:
        raise SpecError(
            f"run directory {path} cannot be made: {error.strerror}; choose another output.run_dir"
        ) from error
    if foreign and not is_run_directory(path):
        raise SpecError(
            f"run directory {path}: the folder holds other things ({foreign[0].name}) and no run; "
            "choose another output.run_dir"
        )
    return FileLock(layout.run_lock, f"run directory {path}").acquire()


def _move_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    _log.info("%s: moved the older run to %s", path, aside)
    try:
        path.rename(aside)
        sync(path.parent)
    except OSError as error:
        raise storage_error(path, error, "move") from error


def _clear(layout: Layout) -> None:
    """Remove everything but the locks and the embedding vectors, which were paid for.

    The manifest stays until the new one replaces it, so that a run that is killed in the middle does this again.
    """
    kept = (layout.manifest, layout.manifest_copy, layout.run_lock, layout.journal_lock, layout.cache)
    try:
        for entry in layout.path.iterdir():
            if entry.is_dir() and entry not in kept:
                rmtree(entry)
            elif entry not in kept:
                entry.unlink()
    except OSError as error:
        raise storage_error(layout.path, error, "clear") from error


def _refuse_other_job(path: Path, manifest: Manifest, asked: Fingerprint) -> None:
    keys = changed(manifest.parts, asked.parts)
    if keys == [INPUT_FILES]:
        files = changed_files(manifest.parts, asked.parts)
        raise FingerprintError(
            f"run directory {path}: the input has changed since the run began ({files}); "
            "put it back as it was and rerun the same command to resume; --finish writes the results of what was "
            "answered; --fresh starts a new run and keeps the old one"
        )
    if keys:
        shown = ", ".join(keys[:_KEYS_SHOWN]) + (
            f" and {len(keys) - _KEYS_SHOWN} more" if len(keys) > _KEYS_SHOWN else ""
        )
        raise FingerprintError(
            f"run directory {path} belongs to a job that differs in {shown}; "
            "--fresh starts a new run and keeps the old one"
        )


def _sweep(layout: Layout) -> None:
    """Remove the half-written files of processes that were killed."""
    try:
        for entry in layout.path.rglob(".*.tmp"):
            entry.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(layout.path, error, "sweep") from error
