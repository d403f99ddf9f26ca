"""Locks that keep several processes from working on the same files."""

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from batch.errors import RunLockedError
from batch.storage.atomic import storage_error

_NOT_HELD = -1


class FileLock:
    """An exclusive lock on a file, which holds the id of the process that has the lock.

    The kernel releases the lock when the process ends, however it ends. A context manager that acquires and releases.
    """

    def __init__(self, path: Path, what: str) -> None:
        """
        Args:
            path: the file; it is made if it is missing, and stays.
            what: what the lock protects, for error messages.
        """
        self.path = path
        self._what = what
        self._descriptor = _NOT_HELD

    def acquire(self) -> Self:
        """Take the lock without waiting for it. Does nothing if this object has it already.

        Raises:
            RunLockedError: another process has it.
            StorageError: the file cannot be opened or locked.
        """
        while self._descriptor == _NOT_HELD:
            self._descriptor = self._open_and_lock()
            # Between opening the file and locking it, another process may have moved the folder away.
            if not self._is_at_path():
                self.release()
        return self

    def _open_and_lock(self) -> int:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise RunLockedError(
                f"{self._what}: process {holder or 'unknown'} works on it; wait for it or stop it"
            ) from error
        except OSError as error:
            os.close(descriptor)
            raise storage_error(self.path, error, "lock") from error
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            os.close(descriptor)
            raise storage_error(self.path, error) from error
        return descriptor

    def _is_at_path(self) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Release the lock. Releasing twice is harmless."""
        if self._descriptor != _NOT_HELD:
            os.close(self._descriptor)
            self._descriptor = _NOT_HELD

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
