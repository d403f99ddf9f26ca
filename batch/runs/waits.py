"""How long the endpoints of each model ask to be left alone, for whoever looks at a run."""

from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from batch.storage.atomic import write_bytes


class StoredWait(NamedTuple):
    """No endpoint of a model may be asked before a moment."""

    until: float
    """Seconds since 1970."""
    words: str
    """Which endpoint may be asked first then, and what it said."""


_FILE = TypeAdapter(dict[str, StoredWait])


def read_waits(path: Path) -> dict[str, StoredWait]:
    """By model; nothing where there is no such file, or one that cannot be read: it is only told, never acted on."""
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def write_waits(path: Path, waits: dict[str, StoredWait]) -> None:
    """Keep them. Raises StorageError."""
    write_bytes(path, _FILE.dump_json(waits, indent=2))
