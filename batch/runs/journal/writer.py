"""Appends to journals; `batch.runs.journal.lines` describes their format."""

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import orjson

from batch.errors import StorageError
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.journal.group_fsync import GroupSync, SyncedFile
from batch.runs.journal.lines import checked_content, header, salvaged_content, to_line
from batch.storage.atomic import make_folder, storage_error

_BLOCK_BYTES = 1 << 16
# When more than this waits to be written, it is written at once, because a kill loses what waits.
_MOST_WAITING_BYTES = 16 << 10


class Journal:
    """Appends to one journal. Its methods collect lines, and `flush` gives them to the kernel with one write(2).

    A killed process loses no line that was flushed; a kill in the middle of a write loses the last lines of that write.
    So a caller sends a request, or relies on an outcome, only after `flush` has returned.

    `flush` raises StorageError if lines could not be written whole, or if an earlier write or sync failed, and again
    each time it is called; nothing more is written then. Every other method may raise it too, because a journal flushes
    by itself when many lines wait. All calls must come from one thread.
    """

    def __init__(self, file: SyncedFile, group: GroupSync) -> None:
        self._file = file
        self._group = group
        self._descriptor = file.descriptor
        self._failure: StorageError | None = None
        self._closed = False
        self._lines: list[bytes] = []
        self._size = 0

    @classmethod
    def open(cls, path: Path, endpoints: Sequence[str], group: GroupSync) -> "Journal":
        """Open the journal at `path` for appending, and write the header of a new sitting.

        The file and its folders are made if they are missing. A torn last line is cut off: call `replay` first to learn
        of it.

        Args:
            path: the journal.
            endpoints: the URLs that endpoint indexes in this sitting's lines stand for.
            group: syncs the file from now on, and closes it after `close`.

        Raises:
            StorageError: the file cannot be opened, repaired or written.
        """
        try:
            make_folder(path.parent)
            new = not path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise storage_error(path, error, "open") from error
        try:
            _mend(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise storage_error(path, error, "mend") from error
        file = SyncedFile(path, descriptor, new=new)
        group.add(file)
        journal = cls(file, group)
        try:
            journal._add(header(path, list(endpoints)))
            journal.flush()
        except StorageError:
            journal.close()
            raise
        return journal

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """Record that this attempt is about to be sent.

        If no later line of the journal ends the attempt, it was in flight when the process died.
        """
        self._add(b'"intent":[%d,%d,%d]}' % (row, attempt, endpoint))

    def attempt(self, attempt: FailedAttempt) -> None:
        """Record that this attempt ended without an answer: the row is no longer in flight."""
        row, number, endpoint, kind, status, latency, counts, billed = attempt
        cost = b""
        if billed is not None:
            cost = b",%b,%b,%d" % (_number(billed.prompt_tokens), _number(billed.completion_tokens), billed.exact)
        self._add(
            b'"attempt":[%d,%d,%d,%b,%b,%.6f,%d%b]}'
            % (row, number, endpoint, orjson.dumps(kind), _number(status), latency, counts, cost)
        )

    def outcome(self, outcome: RowOutcome) -> None:
        """Record how the row ended.

        Its response is stored as it is; only line breaks, which JSON has between its tokens and nowhere else, become
        spaces.
        """
        row, status, endpoint, attempts, latency, prompt_tokens, completion_tokens, response, error, billed = outcome
        if response is None:
            response = b"null"
        elif b"\n" in response or b"\r" in response:
            response = response.replace(b"\n", b" ").replace(b"\r", b" ")
        trouble = b"" if error is None else b',"error":' + orjson.dumps(error.model_dump())
        if billed is not None:
            trouble += b',"billed":[%b,%b,%d]' % (
                _number(billed.prompt_tokens),
                _number(billed.completion_tokens),
                billed.exact,
            )
            if billed.exact:
                prompt_tokens, completion_tokens = billed.prompt_tokens, billed.completion_tokens
        self._add(
            b'"outcome":{"row":%d,"status":"%b","endpoint":%b,"attempts":%d,"latency":%b,'
            b'"prompt_tokens":%b,"completion_tokens":%b%b},"response":%b}'
            % (
                row,
                status.encode(),
                _number(endpoint),
                attempts,
                b"null" if latency is None else b"%.6f" % latency,
                _number(prompt_tokens),
                _number(completion_tokens),
                trouble,
                response,
            )
        )

    def flush(self) -> None:
        """Give the kernel all lines collected so far. It has them when this returns. Raises StorageError."""
        if not self._lines:
            return
        failure = self._failure or self._group.failure
        if failure is not None:
            raise StorageError(str(failure)) from failure
        lines = b"".join(self._lines)
        try:
            written = os.write(self._descriptor, lines)
        except OSError as error:
            self._failure = storage_error(self._file.path, error, "append to")
            raise self._failure from error
        self._file.dirty = True
        if written != len(lines):
            # The next sitting cuts a torn last line off; appending now would bury it in the middle of the file. The
            # lines before it stay, since they are true: answers that came, and requests that may have been sent.
            self._failure = StorageError(
                f"cannot append to {self._file.path}: only {written} of {len(lines)} bytes were taken; "
                "make room, then rerun the same command to resume"
            )
            raise self._failure
        # Only now: if writing fails, a caller that flushes again must get the error again.
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """Flush, and take no more lines. The GroupSync then syncs and closes the file. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            self._failure = self._failure or StorageError(f"{self._file.path} is closed")
            self._group.release(self._file)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _add(self, content: bytes) -> None:
        line = to_line(content)
        self._lines.append(line)
        self._size += len(line)
        if self._size > _MOST_WAITING_BYTES:
            self.flush()


def _number(value: int | None) -> bytes:
    return b"null" if value is None else b"%d" % value


def _mend(descriptor: int) -> None:
    """Leave the file empty or ending in a newline: cut off a torn last line, or add the newline if only it is gone."""
    size = os.fstat(descriptor).st_size
    tail = b""
    start = size
    while start > 0 and b"\n" not in tail:
        block = min(_BLOCK_BYTES, start)
        start -= block
        tail = os.pread(descriptor, block, start) + tail
    last = tail[tail.rfind(b"\n") + 1 :]
    if not last:
        return
    if checked_content(last) is not None:
        os.write(descriptor, b"\n")
    elif salvaged_content(last) is not None:
        # The line is whole; only its newline has become another byte.
        os.ftruncate(descriptor, size - 1)
        os.write(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, size - len(last))
