"""Puts journals on disk in groups, off the event loop."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from batch.errors import StorageError
from batch.storage.atomic import storage_error, sync

# A power cut costs at most what was appended in this window and the sync after it. Not less: each sync makes the
# file system commit its own journal, and appends wait meanwhile. At 10 ms, and one file after the other, that took a
# third of the dispatcher's time; files synced side by side share one commit.
WINDOW_SECONDS = 0.02
_SIDE_BY_SIDE = 8

# macOS has no fdatasync.
SYNC_FILE: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class SyncedFile:
    """An open file under a GroupSync. The writer sets `dirty` after each write and does nothing else."""

    __slots__ = ("closing", "descriptor", "dirty", "new", "path")

    def __init__(self, path: Path, descriptor: int, *, new: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.dirty = True
        self.closing = False
        self.new = new


class GroupSync:
    """A thread that syncs every dirty file once a window.

    A sync that failed is never tried again, because the kernel may have dropped the data and would say yes
    the second time. Nor is any other file synced then. The failure stays in `failure` and is raised by the next use of
    any journal.

    A killed process loses nothing of what was written, with or without this; it is for the machine's own death.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        window_seconds: float = WINDOW_SECONDS,
        sync_file: Callable[[int], None] = SYNC_FILE,
    ) -> None:
        """`enabled=False` syncs nothing: for benchmarks, and for who can do without after a power cut."""
        self.failure: StorageError | None = None
        self._window_seconds = window_seconds
        self._sync_file = sync_file
        self._files: list[SyncedFile] = []
        self._lock = Lock()
        self._stop = Event()
        self._enabled = enabled
        # The pool starts its threads when first needed, so a GroupSync that syncs nothing has none.
        self._pool = ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="group-sync")
        self._thread: Thread | None = None

    def start(self) -> Self:
        """Start the thread, unless syncing is disabled. Until then files are only synced when they are released."""
        if self._enabled and self._thread is None:
            self._thread = Thread(target=self._run, name="group-sync", daemon=True)
            self._thread.start()
        return self

    def add(self, file: SyncedFile) -> None:
        """Look after `file` from now on; the descriptor is ours to close after `release`."""
        with self._lock:
            self._files.append(file)

    def release(self, file: SyncedFile) -> None:
        """No more writes will come: sync once more, then close. Returns at once."""
        file.closing = True
        if self._thread is None or self._stop.is_set():
            self._round()

    def close(self) -> None:
        """Sync what is dirty, close what was released, end the thread.

        Raises:
            StorageError: some sync or close failed, now or before.
        """
        if not self._stop.is_set():
            self._stop.set()
            if self._thread is not None:
                self._thread.join()
            self._round()
            self._pool.shutdown()
        if self.failure is not None:
            raise StorageError(str(self.failure)) from self.failure

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop.wait(self._window_seconds):
            self._round()

    def _round(self) -> None:
        """Visit every file that needs it. Whatever goes wrong is `failure` afterwards, and nothing is raised."""
        with self._lock:
            files = [file for file in self._files if file.dirty or file.closing]
        # One file needs no other thread, nor do files that are not synced any more.
        alone = len(files) == 1 or self.failure is not None
        try:
            for _ in map(self._visit, files) if alone else self._pool.map(self._visit, files):
                pass
        except Exception as error:  # noqa: BLE001  it becomes the failure
            # Raised in the thread, this would end all syncing and nobody would hear of it.
            self.failure = self.failure or StorageError(
                f"journals cannot be synced: {error!r}; the same command goes on"
            )

    def _visit(self, file: SyncedFile) -> None:
        """Sync `file` if it is dirty, and close it if it was released."""
        # Read before syncing: a release that comes later gets its own sync.
        closing = file.closing
        if file.dirty:
            # Cleared before syncing: a write that comes in between is synced again rather than missed.
            file.dirty = False
            if self._enabled and self.failure is None:
                self._put_on_disk(file)
        if closing and self._forget(file):
            try:
                os.close(file.descriptor)
            except OSError as error:
                # A network file system may tell only now that data is lost. The descriptor is free all the same.
                self.failure = self.failure or storage_error(file.path, error, "close")

    def _forget(self, file: SyncedFile) -> bool:
        """Whether `file` is the caller's to close: its number may be somebody else's as soon as it is closed."""
        with self._lock:
            # A round that broke off may have left visits behind, which are made beside those of the next.
            if file not in self._files:
                return False
            self._files.remove(file)
            return True

    def _put_on_disk(self, file: SyncedFile) -> None:
        try:
            self._sync_file(file.descriptor)
            if file.new:
                sync(file.path.parent)
                file.new = False
        except OSError as error:
            self.failure = self.failure or storage_error(file.path, error, "sync")
