"""Limits that were learned of endpoints, kept from one sitting to the next."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from batch.errors import DamagedError, StorageError
from batch.limits import LearnedLimits
from batch.storage.sealed import read_sealed, write_sealed

_FILE = TypeAdapter(dict[str, dict[str, LearnedLimits]])


def read_found(path: Path) -> dict[str, dict[str, LearnedLimits]]:
    """Read the learned limits by model and endpoint; empty if the file is missing or cannot be read.

    They only say where the search for a limit begins, so a damaged file does no more harm than a missing one.
    """
    try:
        stored = read_sealed(path, path.name)
        return {} if stored is None else _FILE.validate_json(stored)
    except (DamagedError, StorageError, ValidationError):
        return {}


def write_found(path: Path, found: dict[str, dict[str, LearnedLimits]]) -> None:
    """Store learned limits by model and endpoint. Raises StorageError."""
    write_sealed(path, path.name, _FILE.dump_json(found, indent=2))
