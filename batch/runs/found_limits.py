"""What endpoints were found to bear, kept from one sitting to the next."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from batch.dispatch.endpoint import FoundLimits
from batch.runs.atomic import write_bytes

_FILE = TypeAdapter(dict[str, dict[str, FoundLimits]])


def read_found(path: Path) -> dict[str, dict[str, FoundLimits]]:
    """By model and endpoint; nothing where there is no such file, or one that cannot be read.

    It only tells a search where to begin, so a damaged one is as good as none.
    """
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return {}


def write_found(path: Path, found: dict[str, dict[str, FoundLimits]]) -> None:
    """Keep it. Raises StorageError."""
    write_bytes(path, _FILE.dump_json(found, indent=2))
