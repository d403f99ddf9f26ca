"""Syncs journals to disk in groups, in threads of its own, so that the event loop does not wait for the disk."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Self

from batch.errors import StorageError
from batch.storage.atomic import storage_error, sync

# A power cut loses at most the lines of one window and of the sync after it. The window is not shorter, because each
# sync makes the file system commit its own journal, and appends wait meanwhile: at 10 ms, and one file after the other,
# that took a third of the dispatcher's time. Files that are synced side by side share one commit.
WINDOW_SECONDS = 0.02
_SIDE_BY_SIDE = 8

# macOS has no fdatasync.
SYNC_FILE: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class SyncedFile:
    """An open file that a GroupSync looks after. Its writer sets `dirty` after each write and does nothing else."""

    __slots__ = ("closing", "descriptor", "dirty", "new", "path")

    def __init__(self, path: Path, descriptor: int, *, new: bool) -> None:
        self.path = path
        self.descriptor = descriptor
        self.dirty = True
        self.closing = False
        self.new = new


class GroupSync:
    """A thread that syncs every dirty file once per window. A context manager that starts and closes it.

    This protects against the death of the machine. A killed process loses nothing that was written even without it.

    A sync that failed is never tried again: the kernel may have dropped the data, and would report success the second
    time. No other file is synced after it either. The error stays in `failure`, and the next flush of any journal
    raises it.
    """

    def __init__(
        self,
        *,
        enabled: bool = True,
        window_seconds: float = WINDOW_SECONDS,
        sync_file: Callable[[int], None] = SYNC_FILE,
    ) -> None:
        """
        Args:
            enabled: `False` syncs nothing: for benchmarks, and for users who accept losing answers to a power cut.
            window_seconds: pause between two rounds of syncs.
            sync_file: syncs the file of a descriptor; raises OSError.
        """
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
        """Sync `file` from now on. The GroupSync owns its descriptor, and closes it after `release`."""
        with self._lock:
            self._files.append(file)

    def release(self, file: SyncedFile) -> None:
        """Sync `file` once more and close it: no more writes will come. Returns before that is done."""
        file.closing = True
        if self._thread is None or self._stop.is_set():
            self._round()

    def close(self) -> None:
        """Sync dirty files, close released ones and end the thread.

        Raises:
            StorageError: a sync or a close has failed, now or earlier.
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
        """Sync and close every file that needs it. Raises nothing: an error becomes `failure`."""
        with self._lock:
            files = [file for file in self._files if file.dirty or file.closing]
        # A single file needs no other thread, and neither do files that are only closed, after a failure.
        alone = len(files) == 1 or self.failure is not None
        try:
            for _ in map(self._visit, files) if alone else self._pool.map(self._visit, files):
                pass
        except Exception as error:  # noqa: BLE001  it becomes the failure
            # If the thread raised it, syncing would end without any journal noticing.
            self.failure = self.failure or StorageError(
                f"journals cannot be synced: {error!r}; rerun the same command to resume"
            )

    def _visit(self, file: SyncedFile) -> None:
        """Sync `file` if it is dirty, and close it if it was released."""
        # Read before syncing: a release that comes during the sync is handled by the next round.
        closing = file.closing
        if file.dirty:
            # Cleared before syncing: a write that comes during the sync is synced by the next round.
            file.dirty = False
            if self._enabled and self.failure is None:
                self._put_on_disk(file)
        if closing and self._forget(file):
            try:
                os.close(file.descriptor)
            except OSError as error:
                # A network file system may report only now that data is lost. The descriptor is closed all the same.
                self.failure = self.failure or storage_error(file.path, error, "close")

    def _forget(self, file: SyncedFile) -> bool:
        """Remove `file` from the list; returns whether this call did so, which makes the caller the one to close it.

        A descriptor must not be closed twice: once it is closed, its number may already stand for another file.
        """
        with self._lock:
            # A round that broke off may have left visits in the pool, which run beside those of the next round.
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
