"""One process at a time."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from batch.errors import RunLockedError
from batch.storage.atomic import storage_error


class Lock:
    """An exclusive lock on a file that names its holder. It ends with the process, however that dies."""

    def __init__(self, path: Path, what: str) -> None:
        """Take the lock on `path` or raise RunLockedError, which says that somebody works on `what`."""
        self.path = path
        while True:
            self._descriptor = self._take(what)
            # Another run may have moved the folder away between our open and our lock.
            if self._still_there():
                break
            os.close(self._descriptor)

    def _take(self, what: str) -> int:
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
                f"{what}: process {holder or 'unknown'} works on it; wait for it or stop it"
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

    def _still_there(self) -> bool:
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        held = os.fstat(self._descriptor)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Let the next one in. The file stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
