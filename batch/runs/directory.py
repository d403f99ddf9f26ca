"""The run directory: opened by one process at a time, and only for the job it was made for."""

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
from batch.runs.nothing_paid import nothing_paid
from batch.storage.atomic import is_temporary, make_folder, storage_error, sync, write_bytes
from batch.storage.checksums import Checksum
from batch.storage.lock import Lock
from batch.storage.sealed import read_sealed, write_sealed
from schemas.base import Spec
from schemas.plans import Plan

LAYOUT_VERSION = 1

_MADE_AGAIN = "%s of the run directory was damaged or gone, and was made again"

# More keys than this on one line tell nobody anything.
_KEYS_SHOWN = 8


class Sitting(Spec):
    """Seconds that one process worked on the run."""

    wall: float
    """From start to end."""
    scoring: float = 0.0
    """Reading and scoring."""
    dispatch: float = 0.0
    """From the first request to the last answer."""


class Manifest(Spec):
    """`run.json`: what the run is."""

    layout: int = LAYOUT_VERSION
    """Version of the folder's layout."""
    job: str
    """The job's name."""
    created: str
    """When the run began, ISO 8601."""
    batchrouter: str
    """Version that began it."""
    fingerprint: str
    """Hash of `parts`."""
    parts: dict[str, Any]
    """What affects answers, by dotted key."""
    plan: dict[str, Any]
    """The plan as the job asks for it, by dotted key."""
    shards: tuple[dict[str, Any], ...] | None = None
    """The shards in input order, once they are known."""
    sittings: tuple[Sitting, ...] = ()
    """One for each process that ended in order."""
    solved: Plan | None = None
    """What `plan.json` holds, for when that is damaged."""
    report: tuple[int, int] | None = None
    """Size and CRC-32 of the last `report.json`."""
    damage: tuple[str, ...] = ()
    """One line for each damaged file of the run that was made again."""


class RunDirectory:
    """A run directory that this process alone may change.

    Attributes:
        layout: where its files are.
        manifest: what the run is; kept in step with `run.json`.
        input_changed: is the input another one than the run began with? Only where `open` was to let that pass.
        plan_changed: does the job ask for another plan than the one `plan.json` and the routed parts came from?
    """

    def __init__(self, layout: Layout, manifest: Manifest, asked: Fingerprint, lock: Lock) -> None:
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
        """Create the run directory, or reopen it to go on.

        Args:
            path: the folder; made with its parents where missing.
            asked: fingerprint of the job as it is now.
            job: the job's name.
            created: now, ISO 8601; kept only where the run is new.
            version: of batchrouter; kept only where the run is new.
            keep_input: let the input differ from the one that the run began with, since none of it is to be read.
            fresh: move an older run to `<path>.<n>`, where it is kept, and begin anew.

        Raises:
            SpecError: `path` is something else than a run directory; it is left alone.
            RunLockedError: another process works on it.
            FingerprintError: it belongs to a job that answers differently.
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
            if manifest is not None and changed(manifest.parts, asked.parts) and nothing_paid(layout):
                # Nothing was sent yet, so nothing is lost: whoever mends a refused job need not ask for a new run.
                _clear(layout)
                manifest = None
            if manifest is not None:
                _refuse_other_job(path, manifest, asked)
                _sweep(layout)
                manifest = _made_again_if_damaged(layout, manifest)
            else:
                parts, plan = dict(asked.parts), dict(asked.plan)
                manifest = Manifest(
                    job=job, created=created, batchrouter=version, fingerprint=asked.hash, parts=parts, plan=plan
                )
                _write(layout, manifest)
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
        """Store the shards. They are set once: everything after is kept by a shard's index."""
        if self.manifest.shards is not None:
            raise ValueError("the shards of a run are set once")
        self._store(shards=tuple(dict(shard) for shard in shards))

    def add_sitting(self, sitting: Sitting) -> None:
        """Add the time this process worked."""
        self._store(sittings=(*self.manifest.sittings, sitting))

    def read_plan(self) -> Plan | None:
        """The solved plan, if there is one that can be read. A damaged `plan.json` is made again from the manifest.

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
            self._store(damage=(*self.manifest.damage, _MADE_AGAIN % path.name))
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
        """Remove a damaged file, so that it is missing and is made again, and keep a note for the report.

        Raises:
            DamagedError: the same file was mended before, so the disk cannot be trusted, or it is none of this run's.
            StorageError: it cannot be removed.
        """
        path = Path(damage.path)
        if not path.is_relative_to(self.layout.path) or damage.path in self._mended:
            raise damage
        self._mended.add(damage.path)
        self._store(damage=(*self.manifest.damage, _MADE_AGAIN % self.layout.place(path)))
        try:
            path.unlink(missing_ok=True)
            sync(path.parent)
        except OSError as error:
            raise storage_error(path, error, "remove") from error

    def discard_report(self) -> None:
        """Forget the report of an earlier end: there is more to do. Raises StorageError."""
        try:
            self.layout.report.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(self.layout.report, error, "remove") from error

    def discard_plan(self) -> None:
        """Forget what an older plan decided; scores and journals stay.

        The manifest changes last, so that a kill in the middle only means that this is done again.
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
        """Let another process in."""
        self._lock.release()

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store(self, **changes: Any) -> None:
        self.manifest = self.manifest.model_copy(update=changes)
        _write(self.layout, self.manifest)


def read_manifest(layout: Layout) -> Manifest:
    """Read `run.json`; takes no lock.

    Raises:
        SpecError: the folder is no run directory, or one that this version cannot read.
        StorageError: the disk fails.
    """
    if not is_run_directory(layout.path):
        raise SpecError(f"{layout.path} is not a run directory: it has no run.json")
    manifest = _read(layout.manifest)
    if manifest is None:
        manifest = _read(layout.manifest_copy)
    if manifest is None:
        raise SpecError(
            f"{layout.manifest} cannot be read, nor can its copy; put back one of them, "
            "or --fresh starts a new run and keeps this one"
        )
    if manifest.layout != LAYOUT_VERSION:
        raise SpecError(
            f"{layout.path} has layout {manifest.layout}, this version reads {LAYOUT_VERSION}; "
            "--fresh starts a new run and keeps this one"
        )
    return manifest


def is_run_directory(path: Path) -> bool:
    """Does this folder hold a run?"""
    layout = Layout(path)
    return layout.manifest.is_file() or layout.manifest_copy.is_file()


def _read(path: Path) -> Manifest | None:
    """The manifest in this file; `None`: it is not there or damaged."""
    try:
        raw = read_sealed(path, Layout(path.parent).manifest.name)
        return None if raw is None else Manifest.model_validate_json(raw)
    except (DamagedError, ValidationError):
        return None


def _made_again_if_damaged(layout: Layout, manifest: Manifest) -> Manifest:
    """The manifest, which was read from its copy if `run.json` is damaged; both are sound afterwards."""
    if _read(layout.manifest) is not None:
        return manifest
    noted = manifest.model_copy(update={"damage": (*manifest.damage, _MADE_AGAIN % layout.manifest.name)})
    _write(layout, noted)
    return noted


def _with_the_input_of(manifest: Manifest | None, asked: Fingerprint) -> Fingerprint:
    """The fingerprint with the input files that the run began with, if nothing but these has changed."""
    if manifest is None or changed(manifest.parts, asked.parts) != [INPUT_FILES]:
        return asked
    return replace(asked, parts={**asked.parts, INPUT_FILES: manifest.parts[INPUT_FILES]})


def _lock_own(layout: Layout) -> Lock:
    """Lock the folder if it is ours or can become ours."""
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
    return Lock(layout.run_lock, f"run directory {path}")


def _move_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        sync(path.parent)
    except OSError as error:
        raise storage_error(path, error, "move") from error


def _clear(layout: Layout) -> None:
    """Remove everything but the locks and vectors that were paid for.

    The manifest stays until another replaces it: a kill in the middle only means that this is done again.
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
            "put it back as it was, and the same command goes on; --finish writes the results of what was answered; "
            "--fresh starts a new run and keeps the old one"
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
    """Remove what writers that were killed left half done."""
    try:
        for entry in layout.path.rglob(".*.tmp"):
            entry.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(layout.path, error, "sweep") from error


def _write(layout: Layout, manifest: Manifest) -> None:
    body = manifest.model_dump_json(indent=2).encode()
    for path in (layout.manifest, layout.manifest_copy):
        write_sealed(path, layout.manifest.name, body)
