"""Writes folders so that they exist whole or not at all."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree

from batch.storage.atomic import leftovers, storage_error, temp_prefix

_NEW, _OLD = "new", "old"
_ANEW = "to start over"


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder; what the block writes there becomes the folder `path` when the block ends.

    If the block raises, an older `path` stays as it was. Missing folders above are made. A writer that is killed
    leaves a hidden folder beside `path`, which `clear_killed` removes.

    Raises:
        OSError: from making and renaming folders, or from the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=temp_prefix(path), suffix=".tmp", dir=path.parent) as temp,
            _locked(Path(temp)),
        ):
            new, old = Path(temp, _NEW), Path(temp, _OLD)
            new.mkdir()
            yield new
            try:
                if path.exists():
                    path.rename(old)
                new.rename(path)
            finally:
                _put_back(old, path)
    except BaseException:
        # An interrupt may come after the temporary folder was made and before its name is known here.
        clear_killed(path)
        raise


def clear_killed(path: Path) -> None:
    """Remove what killed writers of the folder `path` left beside it. What a living writer is working on stays.

    If a killed writer had moved an older `path` away and not yet replaced it, the older one is put back.

    Raises:
        StorageError: the folder above cannot be read, or something cannot be removed.
    """
    try:
        found = [one for one in leftovers(path) if one.is_dir()]
    except OSError as error:
        raise storage_error(path.parent, error, "read", _ANEW) from error
    for left in found:
        with _locked(left) as locked:
            if not locked:
                continue
            try:
                _put_back(left / _OLD, path)
                rmtree(left)
            except OSError as error:
                raise storage_error(left, error, "remove", _ANEW) from error


def check_folder_writable(folder: Path) -> None:
    """Try to write in `folder`, or where it will be made, before any work is done for it. Leaves nothing behind.

    Raises StorageError.
    """
    try:
        there = next(one for one in (folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=there) as file:
            # A full disk accepts a new name, but no byte.
            file.write(b"\n")
            file.flush()
    except OSError as error:
        raise storage_error(folder, error, then=_ANEW) from error


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock `folder` while the block runs, so that other processes see that it is in use.

    Yields whether it is locked. It is not if another process has the lock, if the folder is gone or belongs to another
    user, or if the file system has no locks.
    """
    with ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:
            locked = False
        yield locked


def _put_back(old: Path, path: Path) -> None:
    if old.exists() and not path.exists():
        old.rename(path)
