"""What endpoints were found to bear, kept from one sitting to the next."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from batch.errors import DamagedError, StorageError
from batch.limits import LearnedLimits
from batch.storage.sealed import read_sealed, write_sealed

_FILE = TypeAdapter(dict[str, dict[str, LearnedLimits]])


def read_found(path: Path) -> dict[str, dict[str, LearnedLimits]]:
    """By model and endpoint; nothing where there is no such file, or one that cannot be read.

    It only tells a search where to begin, so a damaged one is as good as none.
    """
    try:
        stored = read_sealed(path, path.name)
        return {} if stored is None else _FILE.validate_json(stored)
    except (DamagedError, StorageError, ValidationError):
        return {}


def write_found(path: Path, found: dict[str, dict[str, LearnedLimits]]) -> None:
    """Keep it. Raises StorageError."""
    write_sealed(path, path.name, _FILE.dump_json(found, indent=2))
