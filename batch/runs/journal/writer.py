"""What was sent and what came of it, one line each, written before anything trusts it.

A journal is a JSON Lines file per shard and model. Each line starts with a checksum of fixed width over the
rest of the line, so that any damaged byte is noticed:

    {"crc":"1c291ca3","journal":{"version":1,"place":"00012/m.jsonl","endpoints":["http://a/v1","http://b/v1"]}}
    {"crc":"...","intent":[row, attempt, endpoint]}
    {"crc":"...","attempt":[row, attempt, endpoint, kind, status, seconds, counts]}
    {"crc":"...","attempt":[row, attempt, endpoint, kind, status, seconds, counts, prompt tokens, answer tokens, exact]}
    {"crc":"...","outcome":{"row":7,"status":"ok","endpoint":0,...},"response":<the provider's JSON as it came>}

`endpoint` is an index into the endpoints of the header above it. A header opens each sitting: a process that
found the file, cut a torn last line off, and went on. An attempt ends by its `attempt` line or by the row's
outcome; a row may have several outcomes, and the last one stands. `counts` is 1 where the attempt is one of the row's
`max_attempts`, which all sittings share; journals of older versions do not say. An attempt that may have been billed
without an answer has the tokens it was billed for, or, where `exact` is 0, those that it can be billed for at most
(null: nothing bounds them). An outcome that is such an attempt's end has them as `"billed":[prompt, answer, exact]`.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from zlib import crc32

import orjson

from batch.errors import StorageError
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.journal.group_fsync import GroupSync, SyncedFile
from batch.storage.atomic import make_folder, storage_error

VERSION = 1

CRC_MARK = b'{"crc":"'
_PREFIX = CRC_MARK + b'%08x",'
_LINE = _PREFIX + b"%b\n"
REST = len(_PREFIX % 0)
RESPONSE_MARK = b'},"response":'

_PLACE = re.compile(r"\d{5,}/[^/]+\.jsonl")

_BLOCK_BYTES = 1 << 16
# More than this does not wait for `flush`: a kill loses what waits.
_MOST_WAITING_BYTES = 16 << 10


class Journal:
    """Appends to one journal. Calls collect lines, and `flush` gives them to the kernel with one write(2).

    A kill loses no line that was flushed, and only the last lines of a write that it broke off. So what a line is about
    is trusted, and a request sent, only after `flush` has returned.

    `flush` raises StorageError where lines could not be written whole, or where an earlier write or sync failed, and
    again each time it is called; nothing more is written then. So may every call, since many lines are flushed
    unasked. Calls belong in one thread.
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
        """Open `path` for appending, made with its folders where missing, and start a sitting.

        A torn last line is cut off; whoever wants to know of it calls `replay` first.

        Args:
            endpoints: urls that this sitting's endpoint indexes stand for.
            group: syncs the file from now on, and closes it after `close`.
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
        header = {"journal": {"version": VERSION, "place": place_of(path), "endpoints": list(endpoints)}}
        try:
            journal._add(orjson.dumps(header)[1:])
            journal.flush()
        except StorageError:
            journal.close()
            raise
        return journal

    def intent(self, row: int, attempt: int, endpoint: int) -> None:
        """This attempt is about to be sent. A row whose last line this is was in flight when a run died."""
        self._add(b'"intent":[%d,%d,%d]}' % (row, attempt, endpoint))

    def attempt(self, attempt: FailedAttempt) -> None:
        """This attempt ended without an answer; the row is no longer in flight."""
        row, number, endpoint, kind, status, latency, counts, billed = attempt
        cost = b""
        if billed is not None:
            cost = b",%b,%b,%d" % (_number(billed.prompt_tokens), _number(billed.completion_tokens), billed.exact)
        self._add(
            b'"attempt":[%d,%d,%d,%b,%b,%.6f,%d%b]}'
            % (row, number, endpoint, orjson.dumps(kind), _number(status), latency, counts, cost)
        )

    def outcome(self, outcome: RowOutcome) -> None:
        """The row is done.

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
        """Give the kernel all lines collected so far; it has them when this returns."""
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
            # The next sitting cuts a torn line off; to append after it would bury it in the middle. The lines before it
            # are true: answers that came, and requests of which nobody can say any more that they were not sent.
            self._failure = StorageError(
                f"cannot append to {self._file.path}: only {written} of {len(lines)} bytes were taken; "
                "make room, then the same command goes on"
            )
            raise self._failure
        # Not before: whoever asks again for lines that could not be written must hear of it again.
        self._lines.clear()
        self._size = 0

    def close(self) -> None:
        """Flush; no more lines. The file is synced once more and closed by its GroupSync; closing twice is harmless."""
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

    def _add(self, rest: bytes) -> None:
        line = _LINE % (crc32(rest), rest)
        self._lines.append(line)
        self._size += len(line)
        if self._size > _MOST_WAITING_BYTES:
            self.flush()


def sound(line: bytes) -> bytes | None:
    """The rest of a line, given without its newline, if its checksum holds."""
    rest = line[REST:]
    return rest if rest and line.startswith(_PREFIX % crc32(rest)) else None


def salvage(line: bytes) -> bytes | None:
    """The rest of a line whose checksum holds once its last byte, where the newline should be, is left out."""
    return sound(line[:-1])


def place_of(path: Path) -> str:
    """What the header of a journal says of where it belongs: its shard's folder and its file name."""
    return f"{path.parent.name}/{path.name}"


def stated_place(rest: bytes) -> str | None:
    """The place in a header, given as the rest of a sound line; `None`: it is no header, or an older version's."""
    if not rest.startswith(b'"journal":'):
        return None
    place = orjson.loads(b"{" + rest)["journal"].get("place")
    return place if isinstance(place, str) and _PLACE.fullmatch(place) else None


def _number(value: int | None) -> bytes:
    return b"null" if value is None else b"%d" % value


def _mend(descriptor: int) -> None:
    """Leave the file empty or ending in a newline: cut a torn last line, finish one that lacks only its newline."""
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
    if sound(last) is not None:
        os.write(descriptor, b"\n")
    elif salvage(last) is not None:
        # The line is whole, and what was its newline is another byte now.
        os.ftruncate(descriptor, size - 1)
        os.write(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, size - len(last))
