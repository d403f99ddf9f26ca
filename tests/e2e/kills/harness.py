"""Runs that are killed, or whose disk fails, at system calls that strace chooses; and the account of what became of
every row.

A run is told from outside what happened to it: by the server's ledger, which belongs to nobody, and by the journals as
they are on disk at the instant of each kill.
"""

import errno
import json
import os
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from batch.runs.journal.replay import replay
from tests.e2e.commands import BATCHROUTER, LOOK_EVERY_SECONDS, Command
from tests.e2e.kills.account import Account
from tests.e2e.ledger_server import REFUSED, Ledger

STRACE = shutil.which("strace")

# Temporary names are random; here they are numbered, so that a call on such a file can be named before it is made.
_NUMBERED_TEMPS = (
    "import itertools, tempfile\n"
    "tempfile._get_candidate_names = lambda: map('{:08}'.format, itertools.count())\n"
    "from jobs.cli import main\n"
    "main()"
)
SOME_NOT_OK = 1
WRONG = 2
STOPPED = 3
A_BUG = "this is a bug of batchrouter's"

# A run takes two; one that waits for what never comes takes for ever.
LONGEST_SECONDS = 180.0

Strike = Callable[[Command], None]
Stroke = TypeVar("Stroke")

_ON_DESCRIPTORS = ("write", "pwrite64", "ftruncate", "fsync", "fdatasync")
_ON_PATHS = ("openat", "mkdir", "rename", "unlink")
_DESCRIPTOR = re.compile(r"^(\d+) +(\w+)\(\d+<([^>]*)>")
_PATH = re.compile(r"^(\d+) +(\w+)\((.*)")
_QUOTED = re.compile(r'"([^"]*)"')
_PROGRESS = re.compile(r"\d+:\d\d  ")

# How long an answer took and how often it was asked for are all that a kill may change.
_MEASURED = re.compile(rb'"latency_seconds":[^,]*,"attempts":\d+,')

_MODELS = {"small": {"input": 0.5, "output": 1.5}, "large": {"input": 5, "output": 15}}


@dataclass(frozen=True)
class Boundary:
    """A system call that a run makes: the nth of its kind that one of its threads makes on a file."""

    call: str
    path: str
    """Relative to the job's folder."""
    nth: int

    def __str__(self) -> str:
        return f"{self.call} {self.nth} of {self.path}"


@dataclass(frozen=True)
class Fault:
    """A disk that fails from some call on."""

    error: str
    """As `ENOSPC`."""
    at: Boundary

    def __str__(self) -> str:
        return f"{self.error} at {self.at}"


class Job:
    """A job in three shards, of rows that are answered, refused, invalid and equal to others, half for either model."""

    def __init__(self, folder: Path, ledger: Ledger, rows: int, *, engine: str, format: str, at_once: int) -> None:  # noqa: A002
        self.folder = folder
        self.path = folder / "job.yaml"
        self.directory = folder / "results.jsonl.run"
        self.rows = rows
        self.sources = {row: _source(row, rows // 3) for row in range(rows) if row % 10 != 7}
        """The row whose answer each valid row has."""
        self._ledger = ledger
        self._first = len(ledger)
        self._starts: list[Command] = []
        self._stored: list[tuple[int, set[int]]] = []
        self.stopped_badly: list[str] = []
        """What was wrong with how it stopped when its disk failed."""
        folder.mkdir(parents=True, exist_ok=True)
        for start in range(0, rows, rows // 3):
            lines = [json.dumps(self._row(row)) for row in range(start, min(start + rows // 3, rows))]
            (folder / f"prompts-{start:05}.jsonl").write_text("\n".join(lines))
        endpoint = {"url": ledger.url, "limits": {"max_in_flight": at_once // 2}}
        job = {
            "engine": engine,
            "input": {"path": "prompts-*.jsonl", "params": {"temperature": 0}},
            "router": {"kind": "random"},
            "models": [{"name": name, "price": price, "endpoints": [endpoint]} for name, price in _MODELS.items()],
            "plan": {"strategy": "share", "strong": 0.5},
            "output": {"path": "results.jsonl", "format": format},
        }
        self.path.write_text(json.dumps(job))

    def _row(self, row: int) -> dict[str, str]:
        if row not in self.sources:
            return {"id": f"r{row}"}
        source = self.sources[row]
        refused = REFUSED.decode() if source % 10 == 4 else ""
        return {"id": f"r{row}", "prompt": f"What is in row {source:05}? {refused}"}

    @property
    def deaths(self) -> int:
        """How often it was killed, or its disk failed."""
        return len(self._stored)

    @property
    def sent(self) -> int:
        """Requests that the server has seen of this job."""
        return len(self._ledger) - self._first

    @property
    def results(self) -> dict[str, bytes]:
        """The files of results by name: OpenAI's as they are, of others all but what is measured and never the same."""
        return {
            path.name: _MEASURED.sub(b"", path.read_bytes())
            for path in sorted(self.folder.glob("results*.jsonl"))
            if path.is_file()
        }

    def start(self, *settings: str, program: Sequence[str] = BATCHROUTER) -> Command:
        """The same command, every time, but for `settings`."""
        output = self.folder / f"start-{len(self._starts)}"
        self._starts.append(Command(self.path, output, *settings, program=program))
        return self._starts[-1]

    def killed_at(self, boundary: Boundary) -> Command:
        """Start it, to be killed before this call is made."""
        return self._struck(boundary, f"signal=SIGKILL:when={boundary.nth}")

    def failing_at(self, fault: Fault) -> Command:
        """Start it; this call and those like it after it fail."""
        return self._struck(fault.at, f"error={fault.error}:when={fault.at.nth}+")

    def _struck(self, boundary: Boundary, how: str) -> Command:
        path = self.folder / boundary.path
        watched = ["-e", f"trace={boundary.call}", "-P", str(path), "-e", f"inject={boundary.call}:{how}"]
        return self.start(program=(*_strace("/dev/null"), *watched, sys.executable, "-c", _NUMBERED_TEMPS))

    def traced(self) -> list[Boundary]:
        """Run it unbroken; every call it makes on its files, in order, of many writes to one temporary file two."""
        log = self.folder.with_suffix(".trace")
        calls = ["-s", "0", "-y", "-e", "trace=" + ",".join((*_ON_DESCRIPTORS, *_ON_PATHS))]
        command = self.start(program=(*_strace(str(log)), *calls, sys.executable, "-c", _NUMBERED_TEMPS))
        assert command.wait() == SOME_NOT_OK, command.stderr
        with log.open() as lines:
            found = list(_boundaries(lines, f"{self.folder}/"))
        last = {(b.call, b.path): b for b in found}
        return [b for b in found if "/journal/" in b.path or b.nth == 1 or last[b.call, b.path] == b]

    def die_at(self, boundaries: Sequence[Boundary]) -> list[Boundary]:
        """Kill it at each of these in turn, then let it end; those that it came to: the next one may be behind it."""
        reached: list[Boundary] = []
        for boundary in boundaries:
            status = self.killed_at(boundary).wait()
            if status != -signal.SIGKILL:
                assert self._has_ended(self.last), self.last.stderr
                return reached
            self.note()
            reached.append(boundary)
        self.finish()
        return reached

    def fail_at(self, faults: Sequence[Fault]) -> list[Fault]:
        """Have the disk fail at each of these in turn, then let it end; those that it came to."""
        reached: list[Fault] = []
        for fault in faults:
            command = self.failing_at(fault)
            if command.ends_within(LONGEST_SECONDS) and self._has_ended(command):
                return reached
            wrong = _wrong_with(command, fault, self)
            if wrong:
                self.stopped_badly.append(f"{fault}: {wrong}")
            self.note()
            reached.append(fault)
        self.finish()
        return reached

    def die_at_random(self, deaths: int, random: Random, longest: float, strike: Strike = Command.kill) -> None:
        """Strike it at so many random instants, unless it ends; then let it end.

        Half of them are a time, at most `longest` seconds, and half a number of requests, at most a tenth of the rows.
        """
        for _ in range(deaths):
            command = self.start()
            if random.random() < 0.5:
                ended = command.ends_within(random.uniform(0, longest))
            else:
                ended = self._ends_before(command, self.sent + random.randint(1, self.rows // 10))
            if ended:
                assert command.wait() == SOME_NOT_OK, command.stderr
                break
            strike(command)
            self.note()
            # Where only a part of it was struck, the rest ends by itself, or goes on without it.
            assert command.wait() in (-signal.SIGKILL, STOPPED, SOME_NOT_OK), command.stderr
            assert A_BUG not in command.stderr, command.stderr
        self.finish()

    def _ends_before(self, command: Command, requests: int) -> bool:
        while self.sent < requests:
            if command.ends_within(LOOK_EVERY_SECONDS):
                return True
        return False

    def finish(self) -> None:
        """Let it come to its end."""
        command = self.start()
        assert self._has_ended(command), command.stderr

    def _has_ended(self, command: Command) -> bool:
        """Whether the command came to the run's end and said so."""
        return command.wait() == SOME_NOT_OK and (self.directory / "report.json").exists()

    @property
    def last(self) -> Command:
        """The command that was started last."""
        return self._starts[-1]

    def note(self) -> None:
        """Note what is answered now, after a kill: `account` finds out whether any of it was sent again."""
        journals = [replay(path) for path in self.directory.glob("journal/*/*.jsonl")]
        # Counted after reading: whatever the journals held by then was sent before.
        self._stored.append((self.sent, {row for journal in journals for row in journal.ok | journal.failed}))

    def account(self, unbroken: dict[str, bytes]) -> Account:
        """What became of every row, now that the run has come to its end."""
        results = self.results
        ids = Counter(_id(line) for raw in results.values() for line in raw.splitlines())
        asked = self._ledger.rows(self._first)
        times_sent = Counter(asked)
        ambiguous = Counter(row["row"] for row in self.report()["ambiguous"])
        again = {
            place for seen, answered in self._stored for place, row in enumerate(asked[seen:], seen) if row in answered
        }
        refused = self._refused()
        return Account(
            jobs=1,
            kills=len(self._stored),
            rows=self.rows,
            lost=len({f"r{row}" for row in range(self.rows)} - ids.keys()),
            duplicated=sum(times - 1 for times in ids.values()),
            corrupt=sum(results.get(name) != unbroken.get(name) for name in results.keys() | unbroken.keys()),
            sent_again=sum(times - 1 for times in times_sent.values()),
            journaled_sent_again=len(again),
            unlisted_sent_again=sum(
                max(0, times - 1 - ambiguous[row] - refused[row]) for row, times in times_sent.items()
            ),
            stopped_badly=len(self.stopped_badly),
        )

    def _refused(self) -> Counter[int]:
        """How often each row was refused by an answer that a journal holds, and that did not end the row.

        A refusal is held until the endpoint has answered another row, which shows whose fault it is. Until then a kill
        has the row asked for once more. It was not billed.
        """
        counts: Counter[int] = Counter()
        for path in self.directory.glob("journal/*/*.jsonl"):
            for line in path.read_bytes().splitlines():
                attempt = json.loads(line).get("attempt")
                if attempt is not None and attempt[3] == "bad_request":
                    counts[attempt[0]] += 1
        return counts

    def report(self) -> dict[str, Any]:
        """The stored report."""
        return dict(json.loads((self.directory / "report.json").read_bytes()))

    def end(self) -> None:
        """Leave nothing running, whatever happened."""
        for command in self._starts:
            command.kill_all()


def break_at_each(
    strokes: Sequence[Stroke],
    new_job: Callable[[], Job],
    suffer: Callable[[Job, Sequence[Stroke]], list[Stroke]],
    unbroken: dict[str, bytes],
    most: int = 10,
) -> Iterator[tuple[Job, Account]]:
    """Jobs that suffer at most so many strokes each, as long as there are strokes that none came to.

    A job's strokes are in the order in which it comes to them, and spread over all of it. What a new job does not come
    to is left out: which thread makes a call is not always the same.

    Args:
        suffer: `Job.die_at` or `Job.fail_at`.
    """
    pending = list(strokes)
    while pending:
        with ending(new_job()) as job:
            reached = suffer(job, pending[:: -(-len(pending) // most)])
            yield job, job.account(unbroken)
        done = reached or pending[:1]
        pending = [stroke for stroke in pending if stroke not in done]


@contextmanager
def ending(job: Job) -> Iterator[Job]:
    """The job, of which nothing runs afterwards."""
    try:
        yield job
    finally:
        job.end()


def _wrong_with(command: Command, fault: Fault, job: Job) -> str:
    """What is wrong with how a command stopped whose disk failed; nothing at all if it stopped well."""
    if not command.ends_within(0):
        command.kill()
        return "does not end"
    lines = complaint(command.stderr)
    words = os.strerror(getattr(errno, fault.error))
    if command.wait() not in ((STOPPED,) if job.sent else (STOPPED, WRONG)):
        return f"status {command.wait()}; {lines[-1:]}"
    if len(lines) != 1 or str(job.folder) not in lines[0] or words not in lines[0]:
        return f"says {lines}"
    return ""


def _source(row: int, rows_per_file: int) -> int:
    return row % rows_per_file if row % 10 == 9 else row


def _id(line: bytes) -> str:
    row = json.loads(line)
    return str(row.get("custom_id", row["id"]))


def _strace(log: str) -> tuple[str, ...]:
    assert STRACE is not None
    return (STRACE, "-f", "-qq", "-o", log)


def _boundaries(lines: Iterator[str], folder: str) -> Iterator[Boundary]:
    made: Counter[tuple[str, str, str]] = Counter()
    seen: set[Boundary] = set()
    for line in lines:
        on_descriptor = _DESCRIPTOR.match(line)
        on_path = _PATH.match(line)
        if on_descriptor and on_descriptor[2] in _ON_DESCRIPTORS:
            thread, call, path = on_descriptor.groups()
        elif on_path and on_path[2] in _ON_PATHS and (named := _QUOTED.findall(on_path[3])):
            thread, call, path = on_path[1], on_path[2], named[0]
        else:
            continue
        # What is printed belongs to whoever reads it.
        if path.startswith(folder) and not path.endswith((".out", ".err")):
            made[thread, call, path] += 1
            boundary = Boundary(call, path.removeprefix(folder), made[thread, call, path])
            if boundary not in seen:
                seen.add(boundary)
                yield boundary


def complaint(stderr: str) -> list[str]:
    """What a command printed besides its progress."""
    return [line for line in stderr.splitlines() if not _PROGRESS.match(line)]
