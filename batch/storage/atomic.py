"""Writes files so that they exist whole or not at all, even after a power cut."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batch.errors import StorageError

PRIVATE_FOLDER = 0o700

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# File systems allow 255 bytes for a name, and that of a temporary file is longer than that of its target.
_LONGEST_STEM = 120


def storage_error(path: Path, error: OSError, doing: str = "write", then: str = "to resume") -> StorageError:
    """The StorageError to raise for `error`: one line with the path, the system's own words and what to do.

    Args:
        path: of the file or folder.
        error: what the system raised.
        doing: a verb for what failed, which `path` completes.
        then: why to rerun the command once the cause is removed.
    """
    cure = "make room, then" if error.errno in _FULL else "once that is mended,"
    return StorageError(f"cannot {doing} {path}: {error.strerror or error}; {cure} rerun the same command {then}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; what the block writes there becomes `path` when the block ends.

    The content is on disk before it gets the name, and the name is on disk before this returns. If the block raises
    or the process is killed, an older `path` stays as it was. Missing folders are made. The file has mode 0600.

    Raises:
        StorageError: in place of every OSError, also one from the block itself.
    """
    try:
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=temp_prefix(path), suffix=".tmp", dir=path.parent)
        os.close(descriptor)
    except OSError as error:
        raise storage_error(path, error) from error
    temp = Path(name)
    try:
        yield temp
        sync(temp)
        temp.replace(path)
        sync(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        # What cannot be removed now is removed when the run is opened again.
        with suppress(OSError):
            temp.unlink()


def write_bytes(path: Path, data: bytes) -> None:
    """Make `path` hold `data`, atomically. Raises StorageError."""
    with replacing(path) as temp:
        temp.write_bytes(data)


def read_bytes(path: Path) -> bytes | None:
    """The content of `path`; `None` if it does not exist. Raises StorageError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_error(path, error, "read") from error


def make_folder(folder: Path, mode: int = PRIVATE_FOLDER) -> None:
    """Make `folder` and its missing parents, all with `mode`, and put their names on disk. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent, mode)
    folder.mkdir(mode=mode, exist_ok=True)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Put a file's content, or a folder's list of names, on disk. Raises OSError.

    A failed fsync must not be tried again: the kernel may have dropped the pages, and the next call would succeed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def leftovers(path: Path) -> Iterator[Path]:
    """Temporary files that killed writers of `path` left beside it."""
    if path.parent.is_dir():
        prefix = temp_prefix(path)
        yield from (p for p in path.parent.iterdir() if p.name.startswith(prefix) and p.name.endswith(".tmp"))


def is_temporary(path: Path) -> bool:
    """Does the name say that a writer which was killed left this file behind?"""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def temp_prefix(path: Path) -> str:
    """What the names of temporary files for `path` begin with; they end in `.tmp`."""
    return f".{path.name[:_LONGEST_STEM]}."
