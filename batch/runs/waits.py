"""For `status`: until when each model's endpoints have asked batchrouter to wait. File `waits.json`."""

from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from batch.storage.atomic import write_bytes


class StoredWait(NamedTuple):
    """A pause that all endpoints of a model have asked for."""

    until: float
    """When the first of them may be sent requests again, in seconds since 1970."""
    words: str
    """Which endpoint that is, and what its server said."""


_FILE = TypeAdapter(dict[str, StoredWait])


def read_waits(path: Path) -> dict[str, StoredWait]:
    """The pauses, by model; empty if the file is missing or cannot be read, since they are only shown to the user."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def write_waits(path: Path, waits: dict[str, StoredWait]) -> None:
    """Store the pauses, by model. Raises StorageError."""
    write_bytes(path, _FILE.dump_json(waits, indent=2))
