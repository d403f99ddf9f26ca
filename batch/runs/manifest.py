"""The manifest of a run, `run.json`, and its copy `run.copy.json`: what the run is, and for which job."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batch.errors import DamagedError, SpecError
from batch.runs.layout import Layout
from batch.storage.sealed import read_sealed, write_sealed
from schemas.base import Spec
from schemas.plans import Plan

LAYOUT_VERSION = 1


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
    """Version of batchrouter that began it."""
    fingerprint: str
    """Hash of `parts`."""
    parts: dict[str, Any]
    """What affects answers, by dotted key: see `batch.runs.fingerprint`."""
    plan: dict[str, Any]
    """The plan as the job asks for it, by dotted key."""
    shards: tuple[dict[str, Any], ...] | None = None
    """The shards in input order; `None` until the input has been cut into shards."""
    sittings: tuple[Sitting, ...] = ()
    """One for each process that ended in order."""
    solved: Plan | None = None
    """A second copy of `plan.json`, from which that file is restored if it is damaged."""
    report: tuple[int, int] | None = None
    """Size and CRC-32 of the last `report.json`."""
    damage: tuple[str, ...] = ()
    """One line for each damaged file of the run that was made again."""


def is_run_directory(path: Path) -> bool:
    """Does this folder hold a run? It does if it has `run.json` or its copy."""
    layout = Layout(path)
    return layout.manifest.is_file() or layout.manifest_copy.is_file()


def read_manifest(layout: Layout) -> Manifest:
    """Read `run.json`, or its copy if `run.json` is missing or damaged. Takes no lock.

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


def write_manifest(layout: Layout, manifest: Manifest) -> None:
    """Write `run.json` and then its copy, each atomically. Raises StorageError."""
    body = manifest.model_dump_json(indent=2).encode()
    for path in (layout.manifest, layout.manifest_copy):
        write_sealed(path, layout.manifest.name, body)


def is_damaged(layout: Layout) -> bool:
    """Is `run.json` itself missing or damaged, so that `read_manifest` reads its copy? Raises StorageError."""
    return _read(layout.manifest) is None


def _read(path: Path) -> Manifest | None:
    """The manifest in one file; `None` if the file is missing or damaged."""
    try:
        # Both files are sealed with the name of the first.
        raw = read_sealed(path, Layout(path.parent).manifest.name)
        return None if raw is None else Manifest.model_validate_json(raw)
    except (DamagedError, ValidationError):
        return None
