"""Attempts that count against `max_attempts`, kept in the journal from one sitting to the next."""

from pathlib import Path
from zlib import crc32

from batch.outcomes import FailedAttempt
from batch.runs.journal.replay import Failures, replay
from batch.runs.journal.writer import Journal
from tests.runs.journals import URLS, OpenJournal, answered, given_up


def failed(journal: Journal, row: int, attempt: int, kind: str, status: int | None, *, counts: bool) -> None:
    journal.intent(row, attempt, 0)
    journal.attempt(FailedAttempt(row, attempt, 0, kind=kind, status=status, latency=0.1, counts=counts))


def test_attempts_add_up_over_sittings(tmp_path: Path) -> None:
    """The counted attempts of two sittings are added: two and one make three. A throttled attempt does not count."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        failed(journal, 7, 1, "server_error", 500, counts=True)
        failed(journal, 7, 2, "timeout", None, counts=True)
    with OpenJournal(path) as journal:
        failed(journal, 7, 3, "rate_limited", 429, counts=False)
        failed(journal, 7, 4, "server_error", 502, counts=True)
    assert replay(path).failures == {7: Failures(3, "server_error", 502)}


def test_a_row_that_was_given_up_begins_anew(tmp_path: Path) -> None:
    """A row that failed gets all its attempts again under `--retry-failed`, so its old failures are forgotten."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        failed(journal, 1, 1, "server_error", 500, counts=True)
        given_up(journal, 1, attempts=2)
        failed(journal, 2, 1, "server_error", 500, counts=True)
        answered(journal, 2, attempts=2)
        failed(journal, 1, 3, "server_error", 503, counts=True)
    assert replay(path).failures == {1: Failures(1, "server_error", 503)}


def test_journals_of_older_versions_are_read_by_the_kind_of_error(tmp_path: Path) -> None:
    """Attempts in old journals have six fields: server failures count, throttles and refused connections do not."""
    rests = [
        b'"journal":{"version":1,"endpoints":["%b"]}}' % URLS[0].encode(),
        b'"intent":[3,1,0]}',
        b'"attempt":[3,1,0,"server_error",500,0.100000]}',
        b'"intent":[3,2,0]}',
        b'"attempt":[3,2,0,"rate_limited",429,0.100000]}',
        b'"intent":[3,3,0]}',
        b'"attempt":[3,3,0,"timeout",null,0.100000]}',
    ]
    path = tmp_path / "j"
    path.write_bytes(b"".join(b'{"crc":"%08x",%b\n' % (crc32(rest), rest) for rest in rests))
    read = replay(path)
    assert read.failures == {3: Failures(2, "timeout", None)}
    assert read.attempts == {3: 3}
    assert not read.notes
