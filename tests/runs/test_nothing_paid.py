"""A run whose every row was refused may be replaced by the mended job; any other run is kept."""

from pathlib import Path

import pytest

from batch.errors import FingerprintError
from batch.outcomes import FailedAttempt
from batch.runs.directory import RunDirectory
from batch.runs.fingerprint import Fingerprint
from batch.runs.journal.writer import Journal
from batch.runs.layout import Layout
from tests.runs.journals import OpenJournal, answered


def opened(path: Path, params: str) -> RunDirectory:
    return RunDirectory.open(path, Fingerprint({"input.params": params}), job="j", created="now", version="0")


def refused(journal: Journal) -> None:
    journal.intent(0, 1, 0)
    journal.attempt(FailedAttempt(0, 1, 0, kind="bad_request", status=400, latency=0.1))


def with_an_answer(journal: Journal) -> None:
    refused(journal)
    journal.intent(1, 1, 0)
    answered(journal, 1)


def with_a_row_in_flight(journal: Journal) -> None:
    refused(journal)
    journal.intent(1, 1, 0)


def test_a_job_whose_every_request_was_refused_may_be_mended(tmp_path: Path) -> None:
    """If every row was refused, the changed job starts over in the same run directory, without `--fresh`."""
    opened(tmp_path / "run", "max_tokens").close()
    with OpenJournal(Layout(tmp_path / "run").journal(0, "m")) as journal:
        refused(journal)
    with opened(tmp_path / "run", "max_completion_tokens") as directory:
        assert not directory.layout.anything_sent()


@pytest.mark.parametrize("fill", [with_an_answer, with_a_row_in_flight])
def test_what_was_or_may_have_been_paid_for_is_kept(tmp_path: Path, fill: object) -> None:
    """After one answer, or one request that was in flight at a kill, the changed job is refused."""
    opened(tmp_path / "run", "max_tokens").close()
    with OpenJournal(Layout(tmp_path / "run").journal(0, "m")) as journal:
        assert callable(fill)
        fill(journal)
    with pytest.raises(FingerprintError, match=r"input\.params"):
        opened(tmp_path / "run", "max_completion_tokens")


def test_a_damaged_journal_is_kept(tmp_path: Path) -> None:
    """A run with a damaged journal is kept, because what the journal held is unknown."""
    opened(tmp_path / "run", "a").close()
    path = Layout(tmp_path / "run").journal(0, "m")
    with OpenJournal(path) as journal:
        refused(journal)
    path.write_bytes(path.read_bytes().replace(b"bad_request", b"bad_bequest"))
    with pytest.raises(FingerprintError):
        opened(tmp_path / "run", "b")
