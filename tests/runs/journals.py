"""A journal written for tests, and how to read one without `batch.runs.journal.replay`."""

import json
from pathlib import Path
from zlib import crc32

from batch.outcomes import RowOutcome
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.writer import Journal
from schemas.results import ErrorInfo

URLS = ("http://a/v1", "http://b/v1")
ANSWER = b'{"id":"c1","choices":[{"message":{"role":"assistant","content":"yes"}}]}'
FAILURE = ErrorInfo(kind="bad_request", status=400, message='HTTP 400: it says "},"response":null')


class OpenJournal:
    """A journal that is open for one sitting; a context manager that gives the journal and closes it."""

    def __init__(self, path: Path, urls: tuple[str, ...] = URLS) -> None:
        self._group = GroupSync(enabled=False)
        self._journal = Journal.open(path, urls, self._group)

    def __enter__(self) -> Journal:
        return self._journal

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self._group.close()


def answered(journal: Journal, row: int, *, attempts: int = 1, endpoint: int = 0, response: bytes = ANSWER) -> None:
    """Write the outcome of an answered row."""
    journal.outcome(
        RowOutcome(
            row,
            status="ok",
            endpoint=endpoint,
            attempts=attempts,
            latency=0.25,
            prompt_tokens=10,
            completion_tokens=5,
            response=response,
        )
    )


def given_up(journal: Journal, row: int, *, attempts: int = 1, error: ErrorInfo = FAILURE) -> None:
    """Write the outcome of a failed row."""
    journal.outcome(RowOutcome(row, status="failed", endpoint=1, attempts=attempts, latency=0.5, error=error))


def lines(path: Path) -> list[dict[str, object]]:
    """Every line as JSON, its checksum verified."""
    found = []
    for line in path.read_bytes().splitlines():
        assert line[:8] == b'{"crc":"'
        assert line[8:16] == b"%08x" % crc32(line[18:])
        found.append(json.loads(line))
    return found
