"""Reads a journal and works out what it says about each row."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from batch.errors import BadAnswer, ConnectionLost, NotConnected, ServerError, TimedOut
from batch.outcomes import Billed
from batch.runs.journal.lines import (
    CONTENT_START,
    CRC_MARK,
    RESPONSE_MARK,
    checked_content,
    place_in_header,
    place_of,
    salvaged_content,
)
from batch.runs.journal.outcome_reader import (
    OUTCOME_START,
    Endpoints,
    JournaledOutcome,
    OutcomePlace,
    OutcomeReader,
    parse_outcome,
)
from batch.storage.atomic import storage_error

# The kinds under which attempts are counted that brought an answer, and those whose end is in no journal.
OK = "ok"
LOST = "lost"

_INTENT = len(b'"intent":[')
_ATTEMPT = len(b'"attempt":')
_ROW = len(b'"outcome":{"row":')
_STATUS = len(b',"status":"')
_IS_OK, _IS_FAILED = b"of"

# In journals of older versions, which do not say it: the kinds of attempts that count against `max_attempts` ...
_COUNTED = frozenset({ServerError.kind, TimedOut.kind, ConnectionLost.kind, BadAnswer.kind})
_OLD_ATTEMPT_FIELDS = 6
_BILLED_FIELD = 7
_BILLED_MARK = b',"billed":['
# ... and the kinds of attempts that may have been billed, for an unknown number of tokens.
_MAYBE_BILLED = frozenset({TimedOut.kind, ConnectionLost.kind, BadAnswer.kind})

_ROW_OF_DAMAGED = re.compile(rb'"(?:intent|attempt)":\[(\d{1,18}),|"outcome":\{"row":(\d{1,18}),')


class LostRequest(NamedTuple):
    """A request that was sent, or was about to be, and whose end is in no journal."""

    row: int
    attempt: int
    endpoint: str | None
    """Its URL; `None` if the line that named it is damaged or gone."""


class Failures(NamedTuple):
    """The failed attempts at a row that has no final outcome."""

    counted: int
    """Attempts that count against `max_attempts`."""
    kind: str
    """The kind of the last one's error."""
    status: int | None
    """HTTP status of the last one; `None` if the server sent none."""


@dataclass
class Replay:
    """What one journal says about its rows. Small whatever the length of the answers, which stay in the file.

    Attributes:
        path: the journal.
        ok: rows answered.
        failed: rows given up. Neither these nor those in `ok` are sent again.
        attempts: by row, how many requests were sent; those that reached no server are not counted.
        failures: by row, the attempts that ended in an error; a row that was given up starts over.
        ambiguous: rows that were in flight when a sitting died, and have neither ended nor been sent again since.
        lost: every request whose end is not in the journal, also those of rows that were sent again since.
        ended: by endpoint and kind of error, how many attempts ended so; `OK` and `LOST` are kinds too.
        billed: by row, the endpoint and tokens of each attempt that may have been billed and brought no answer.
        unpriced: how many attempts of older versions may have been billed for an unknown number of tokens.
        torn: bytes of a last line that was not written whole.
        notes: one line for each damaged line, with file and line number.
        outcome_places: by row, where its standing outcome is in the file.
    """

    path: Path
    ok: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    attempts: dict[int, int] = field(default_factory=dict)
    failures: dict[int, Failures] = field(default_factory=dict)
    ambiguous: dict[int, LostRequest] = field(default_factory=dict)
    lost: list[LostRequest] = field(default_factory=list)
    ended: Counter[tuple[str | None, str]] = field(default_factory=Counter)
    billed: dict[int, list[tuple[str | None, Billed]]] = field(default_factory=dict)
    unpriced: int = 0
    torn: int = 0
    notes: list[str] = field(default_factory=list)
    outcome_places: dict[int, OutcomePlace] = field(default_factory=dict, repr=False)

    def finished(self, row: int) -> bool:
        """Does an outcome end the row for good, `ok` or `failed`?"""
        return row in self.ok or row in self.failed

    def open_outcomes(self) -> OutcomeReader:
        """A reader of single outcomes. Raises StorageError."""
        return OutcomeReader(self.path, self.outcome_places)

    def outcomes(self) -> Iterator[JournaledOutcome]:
        """The standing outcome of each row that has one, `unsent` included, in row order; one at a time in memory."""
        with self.open_outcomes() as reader:
            for row in sorted(self.outcome_places):
                yield reader.read(row)


def replay(path: Path) -> Replay:
    """Read a journal once, from start to end, and leave it as it is. A missing journal reads like an empty one.

    A torn last line is counted in `torn` and otherwise ignored: its write never returned, so no later step relied on
    it. A damaged line elsewhere is skipped and noted; a row that it names is ambiguous unless another line ends it.

    Raises:
        StorageError: the file cannot be read.
    """
    scan = _Scan(Replay(path))
    offset = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                whole = line.endswith(b"\n")
                content = checked_content(line[:-1] if whole else line)
                if content is not None:
                    scan.add(content, offset)
                elif whole:
                    scan.add_damaged(line, offset, number)
                elif (content := salvaged_content(line)) is not None:
                    scan.result.notes.append(f"{path}:{number}: the newline is damaged, the line counts")
                    scan.add(content, offset)
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
    """What is known of a journal after the lines that were added so far."""

    def __init__(self, result: Replay) -> None:
        self.result = result
        self._endpoints: Endpoints = ()
        # Are the lines below the last header those of another journal?
        self._foreign = False
        # By row, the number and endpoint of the attempt that is in flight. Few of them become a LostRequest.
        self._in_flight: dict[int, tuple[int, int]] = {}
        self._damaged: set[int] = set()

    def add(self, content: bytes, offset: int) -> None:
        """Add a sound line that starts at `offset`."""
        if self._foreign and content[1:2] != b"j":
            return
        match content[1:2]:
            case b"i":
                self._add_intent(content)
            case b"o":
                self._add_outcome(content, offset)
            case b"a":
                self._add_attempt(content)
            case b"j":
                self._end_sitting()
                self._endpoints = tuple(orjson.loads(b"{" + content)["journal"]["endpoints"])
                self._check_place(content)

    def add_damaged(self, line: bytes, offset: int, number: int) -> None:
        """Add a line whose checksum is wrong: what can be said of it, and sound lines that are in it."""
        result = self.result
        result.notes.append(f"{result.path}:{number}: the checksum is wrong, the line is skipped")
        named = _ROW_OF_DAMAGED.search(line)
        if named is not None:
            self._damaged.add(int(named[1] or named[2]))
        # If only a newline is damaged, the lines before and after it are whole, and may be answers that were paid for.
        # What looks like the start of a line may also be part of an answer.
        start = 0
        while (start := line.find(CRC_MARK, start + 1)) > 0:
            before = salvaged_content(line[:start])
            if before is not None:
                self.add(before, offset)
            content = checked_content(line[start:-1])
            if content is not None:
                self.add(content, offset + start)
                break

    def _check_place(self, header: bytes) -> None:
        """Leave out the lines below the header of another journal: they are about another shard or model."""
        place, own = place_in_header(header), place_of(self.result.path)
        self._foreign = place is not None and place != own
        if self._foreign:
            self.result.notes.append(f"{self.result.path}: holds lines of journal/{place}, which are left out")

    def end(self) -> None:
        """Finish: all lines were added."""
        self._end_sitting()
        for row in self._damaged:
            if not self.result.finished(row) and row not in self.result.ambiguous:
                self.result.ambiguous[row] = LostRequest(row, self.result.attempts.get(row, 0), None)

    def _add_intent(self, content: bytes) -> None:
        row, attempt, endpoint = map(int, content[_INTENT:-2].split(b","))
        result = self.result
        if row in self._in_flight:
            self._lose(self._sent(row))
        if row in result.ambiguous:
            del result.ambiguous[row]
        self._in_flight[row] = (attempt, endpoint)
        if attempt > result.attempts.get(row, -1):
            result.attempts[row] = attempt

    def _add_attempt(self, content: bytes) -> None:
        fields = orjson.loads(content[_ATTEMPT:-1])
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

    def _add_outcome(self, content: bytes, offset: int) -> None:
        result = self.result
        comma = content.index(b",", _ROW)
        row = int(content[_ROW:comma])
        if row in result.outcome_places:
            result.ok.discard(row)
            result.failed.discard(row)
        if row in result.ambiguous:
            del result.ambiguous[row]
        result.outcome_places[row] = OutcomePlace(offset + CONTENT_START, len(content), self._endpoints)
        status = content[comma + _STATUS]
        if status == _IS_OK:
            result.ok.add(row)
            result.failures.pop(row, None)
        elif status == _IS_FAILED:
            result.failed.add(row)
            result.failures.pop(row, None)
        sent = self._in_flight.pop(row, None)
        billed = None
        if status != _IS_OK and _BILLED_MARK in content:
            billed = orjson.loads(content[OUTCOME_START : content.index(RESPONSE_MARK) + 1]).get("billed")
            if billed is not None:
                self._bill(row, None if sent is None else sent[1], billed)
        if sent is not None:
            error = None if status == _IS_OK else parse_outcome(content, self._endpoints).error
            if error is not None and billed is None:
                # A journal of an older version: newer ones have tokens of every such attempt.
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

    def _sent(self, row: int) -> LostRequest:
        attempt, endpoint = self._in_flight[row]
        return LostRequest(row, attempt, self._url(endpoint))

    def _lose(self, sent: LostRequest) -> None:
        self.result.lost.append(sent)
        self.result.ended[sent.endpoint, LOST] += 1

    def _url(self, endpoint: int) -> str | None:
        return self._endpoints[endpoint] if endpoint < len(self._endpoints) else None
