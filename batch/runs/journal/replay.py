"""What a journal says, read back."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import orjson

from batch.errors import BadAnswer, ConnectionLost, NotConnected, ServerError, TimedOut
from batch.outcomes import Billed
from batch.runs.journal.writer import CRC_MARK, RESPONSE_MARK, REST, place_of, salvage, sound, stated_place
from batch.storage.atomic import storage_error
from schemas.results import ErrorInfo, Status

# Kind under which an attempt is counted that ended well, and one whose end nobody saw.
OK = "ok"
LOST = "lost"

_INTENT = len(b'"intent":[')
_ATTEMPT = len(b'"attempt":')
_OUTCOME = len(b'"outcome":')
_ROW = len(b'"outcome":{"row":')
_STATUS = len(b',"status":"')
_IS_OK, _IS_FAILED = b"of"

# Kinds of attempts that counted against `max_attempts`, in journals that do not say which ones did.
_COUNTED = frozenset({ServerError.kind, TimedOut.kind, ConnectionLost.kind, BadAnswer.kind})
_OLD_ATTEMPT_FIELDS = 6
_BILLED_FIELD = 7
_BILLED_MARK = b',"billed":['
# Kinds of attempts that may have been billed, in journals that do not say for how many tokens.
_MAYBE_BILLED = frozenset({TimedOut.kind, ConnectionLost.kind, BadAnswer.kind})

_ROW_OF_DAMAGED = re.compile(rb'"(?:intent|attempt)":\[(\d{1,18}),|"outcome":\{"row":(\d{1,18}),')

_Endpoints = tuple[str, ...]

_Place = tuple[int, int, _Endpoints]
"""Where the rest of a line is, its length, and the endpoints that its index refers to."""


class Sent(NamedTuple):
    """A request that was on its way, and whose end nobody saw."""

    row: int
    attempt: int
    endpoint: str | None
    """`None`: the line that said so is damaged."""


class Failures(NamedTuple):
    """What went wrong with a row that has no final outcome."""

    counted: int
    """Attempts that count against `max_attempts`."""
    kind: str
    """Of the last one."""
    status: int | None
    """HTTP status of the last one, where there was one."""


class JournaledOutcome(NamedTuple):
    """How a row ended."""

    row: int
    status: Status
    endpoint: str | None
    attempts: int
    latency: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: ErrorInfo | None
    response: bytes | None
    """The provider's JSON as it came; `None` where there was none."""


@dataclass
class Replay:
    """One journal, indexed: small whatever the length of the answers, which stay in the file.

    Attributes:
        path: the journal.
        ok: rows answered.
        failed: rows given up. Neither these nor the `ok` ones are to be sent again.
        attempts: requests sent, by row; those that reached no server are not counted.
        failures: by row, its attempts that ended in an error; a row that was given up begins anew.
        ambiguous: rows in flight when a sitting died, and neither ended nor sent again since.
        lost: every request whose end nobody saw, also those of rows that were sent again since.
        ended: by (endpoint, kind of error), how many attempts ended so; `ok` and `lost` are kinds too.
        billed: by row, the attempts that may have been billed and brought no answer, and their endpoints.
        unpriced: attempts of older versions' journals that may have been billed; nothing says for how many tokens.
        torn: bytes of a last line that was not written whole.
        notes: one line for each damage, with file and line number.
    """

    path: Path
    ok: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    failures: dict[int, Failures] = field(default_factory=dict)
    ambiguous: dict[int, Sent] = field(default_factory=dict)
    lost: list[Sent] = field(default_factory=list)
    ended: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    billed: dict[int, list[tuple[str | None, Billed]]] = field(default_factory=dict)
    unpriced: int = 0
    torn: int = 0
    notes: list[str] = field(default_factory=list)
    # Where the last outcome of each row is.
    located: dict[int, _Place] = field(default_factory=dict, repr=False)

    def finished(self, row: int) -> bool:
        """Is there an outcome that ends the row for good?"""
        return row in self.ok or row in self.failed

    def open_outcomes(self) -> "OutcomeReader":
        """A reader of single outcomes."""
        return OutcomeReader(self.path, self.located)

    def outcomes(self) -> Iterator[JournaledOutcome]:
        """The standing outcome of each row that has one, `unsent` included, by row; one at a time in memory."""
        with self.open_outcomes() as reader:
            for row in sorted(self.located):
                yield reader.read(row)


class OutcomeReader:
    """Reads outcomes of a journal in any order, straight from the file."""

    def __init__(self, path: Path, located: Mapping[int, _Place]) -> None:
        self._path = path
        self._located = located
        self._descriptor = -1
        if located:
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise storage_error(path, error, "read") from error

    def __contains__(self, row: int) -> bool:
        return row in self._located

    def read(self, row: int) -> JournaledOutcome:
        """The standing outcome of `row`; KeyError where it has none, StorageError where the file fails."""
        offset, length, endpoints = self._located[row]
        try:
            rest = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise storage_error(self._path, error, "read") from error
        return _parse_outcome(rest, endpoints)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> "OutcomeReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def replay(path: Path) -> Replay:
    """Read a journal once, in a stream; it is left as it is. A journal that does not exist says nothing.

    A torn last line is counted in `torn` and otherwise ignored: its write never returned, so nothing trusted it.
    A damaged line elsewhere is skipped and noted; a row that it names counts as ambiguous unless another line ends it.

    Raises:
        StorageError: the file cannot be read.
    """
    scan = _Scan(Replay(path))
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                whole = line.endswith(b"\n")
                rest = sound(line[:-1] if whole else line)
                if rest is not None:
                    scan.add(rest, offset)
                elif whole:
                    scan.add_damaged(line, offset, number)
                elif (rest := salvage(line)) is not None:
                    scan.result.notes.append(f"{path}:{number}: the newline is damaged, the line counts")
                    scan.add(rest, offset)
                else:
                    scan.result.torn = len(line)
                    scan.result.notes.append(f"{path}:{number}: the last line was not written whole and is ignored")
                offset += len(line)
    except FileNotFoundError:
        return scan.result
    except OSError as error:
        raise storage_error(path, error, "read") from error
    scan.end()
    return scan.result


class _Scan:
    """What is known half way through a journal."""

    def __init__(self, result: Replay) -> None:
        self.result = result
        self._endpoints: _Endpoints = ()
        # Are the lines below the last header those of another journal?
        self._foreign = False
        # By row, attempt and endpoint; a Sent is made of those few that nothing follows.
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._damaged: set[int] = set()

    def add(self, rest: bytes, offset: int) -> None:
        """One sound line, that starts at `offset`."""
        if self._foreign and rest[1:2] != b"j":
            return
        match rest[1:2]:
            case b"i":
                self._add_intent(rest)
            case b"o":
                self._add_outcome(rest, offset)
            case b"a":
                self._add_attempt(rest)
            case b"j":
                self._end_sitting()
                self._endpoints = tuple(orjson.loads(b"{" + rest)["journal"]["endpoints"])
                self._look_at_place(rest)

    def add_damaged(self, line: bytes, offset: int, number: int) -> None:
        """One line whose checksum is wrong."""
        result = self.result
        result.notes.append(f"{result.path}:{number}: the checksum is wrong, the line is skipped")
        named = _ROW_OF_DAMAGED.search(line)
        if named is not None:
            self._damaged.add(int(named[1] or named[2]))
        # Where only a newline was damaged, the lines before and after it are whole, and may be paid answers. What looks
        # like the start of a line may also be in an answer.
        start = 0
        while (start := line.find(CRC_MARK, start + 1)) > 0:
            before = salvage(line[:start])
            if before is not None:
                self.add(before, offset)
            rest = sound(line[start:-1])
            if rest is not None:
                self.add(rest, offset + start)
                break

    def _look_at_place(self, rest: bytes) -> None:
        """Leave out what another journal's header is above: its rows are none of this shard and model."""
        place, own = stated_place(rest), place_of(self.result.path)
        self._foreign = place is not None and place != own
        if self._foreign:
            self.result.notes.append(f"{self.result.path}: holds lines of journal/{place}, which are left out")

    def end(self) -> None:
        """No more lines."""
        self._end_sitting()
        for row in self._damaged:
            if not self.result.finished(row) and row not in self.result.ambiguous:
                self.result.ambiguous[row] = Sent(row, self.result.attempts.get(row, 0), None)

    def _add_intent(self, rest: bytes) -> None:
        row, attempt, endpoint = map(int, rest[_INTENT:-2].split(b","))
        result = self.result
        if row in self._in_flight:
            self._lose(self._sent(row))
        if row in result.ambiguous:
            del result.ambiguous[row]
        self._in_flight[row] = (attempt, endpoint)
        if attempt > result.attempts.get(row, -1):
            result.attempts[row] = attempt

    def _add_attempt(self, rest: bytes) -> None:
        fields = orjson.loads(rest[_ATTEMPT:-1])
        row, _, endpoint, kind, status = fields[:5]
        if len(fields) > _BILLED_FIELD:
            self._bill(row, endpoint, fields[_BILLED_FIELD:])
        elif len(fields) == _OLD_ATTEMPT_FIELDS:
            self.result.unpriced += kind in _MAYBE_BILLED
        counts = kind in _COUNTED if len(fields) == _OLD_ATTEMPT_FIELDS else bool(fields[6])
        before = self.result.failures.get(row)
        self.result.failures[row] = Failures((before.counted if before else 0) + counts, kind, status)
        sent = self._in_flight.pop(row, None)
        if kind == NotConnected.kind and sent is not None:
            self.result.attempts[row] = sent[0] - 1
        self.result.ended[self._url(endpoint), kind] += 1

    def _add_outcome(self, rest: bytes, offset: int) -> None:
        result = self.result
        comma = rest.index(b",", _ROW)
        row = int(rest[_ROW:comma])
        if row in result.located:
            result.ok.discard(row)
            result.failed.discard(row)
        if row in result.ambiguous:
            del result.ambiguous[row]
        result.located[row] = (offset + REST, len(rest), self._endpoints)
        status = rest[comma + _STATUS]
        if status == _IS_OK:
            result.ok.add(row)
            result.failures.pop(row, None)
        elif status == _IS_FAILED:
            result.failed.add(row)
            result.failures.pop(row, None)
        sent = self._in_flight.pop(row, None)
        billed = None
        if status != _IS_OK and _BILLED_MARK in rest:
            billed = orjson.loads(rest[_OUTCOME : rest.index(RESPONSE_MARK) + 1]).get("billed")
            if billed is not None:
                self._bill(row, None if sent is None else sent[1], billed)
        if sent is not None:
            error = None if status == _IS_OK else _parse_outcome(rest, self._endpoints).error
            if error is not None and billed is None:
                # Old journals. New ones say it of all such attempts.
                result.unpriced += error.kind in _MAYBE_BILLED
            result.ended[self._url(sent[1]), OK if error is None else error.kind] += 1

    def _bill(self, row: int, endpoint: int | None, billed: Sequence[int | None]) -> None:
        prompt_tokens, completion_tokens, exact = billed
        url = None if endpoint is None else self._url(endpoint)
        self.result.billed.setdefault(row, []).append((url, Billed(prompt_tokens, completion_tokens, bool(exact))))

    def _end_sitting(self) -> None:
        for row in self._in_flight:
            self.result.ambiguous[row] = self._sent(row)
            self._lose(self.result.ambiguous[row])
        self._in_flight.clear()

    def _sent(self, row: int) -> Sent:
        attempt, endpoint = self._in_flight[row]
        return Sent(row, attempt, self._url(endpoint))

    def _lose(self, sent: Sent) -> None:
        self.result.lost.append(sent)
        self.result.ended[sent.endpoint, LOST] += 1

    def _url(self, endpoint: int) -> str | None:
        return self._endpoints[endpoint] if endpoint < len(self._endpoints) else None


def _parse_outcome(rest: bytes, endpoints: _Endpoints) -> JournaledOutcome:
    end = rest.index(RESPONSE_MARK)
    head = orjson.loads(rest[_OUTCOME : end + 1])
    response = rest[end + len(RESPONSE_MARK) : -1]
    error = head.get("error")
    endpoint = head["endpoint"]
    return JournaledOutcome(
        head["row"],
        head["status"],
        endpoints[endpoint] if endpoint is not None and endpoint < len(endpoints) else None,
        head["attempts"],
        head["latency"],
        head["prompt_tokens"],
        head["completion_tokens"],
        None if error is None else ErrorInfo(**error),
        None if response == b"null" else response,
    )
