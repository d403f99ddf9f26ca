"""Reading journals back: whole, torn and damaged ones."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.errors import StorageError
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.journal.replay import LOST, OK, LostRequest, Replay, replay
from schemas.results import ErrorInfo
from tests.runs.journals import ANSWER, FAILURE, URLS, OpenJournal, answered, given_up


def test_a_missing_journal_reads_as_an_empty_one(tmp_path: Path) -> None:
    """A missing file reads as an empty journal; a folder in its place is an error."""
    assert replay(tmp_path / "j") == Replay(tmp_path / "j")
    with pytest.raises(StorageError, match="cannot read"):
        replay(tmp_path)


def test_outcomes_come_back_as_they_were_written(tmp_path: Path) -> None:
    """Every field of every kind of outcome is read back, and the provider's JSON byte for byte, in row order."""
    path = tmp_path / "j"
    budget = ErrorInfo(kind="budget", message="")
    with OpenJournal(path) as journal:
        given_up(journal, 5, attempts=3)
        answered(journal, 2, endpoint=1)
        journal.outcome(RowOutcome(9, status="unsent", endpoint=None, attempts=0, latency=None, error=budget))
    read = replay(path)
    assert (read.ok, read.failed, read.notes, read.torn) == ({2}, {5}, [], 0)
    assert not read.finished(9)
    assert [tuple(outcome) for outcome in read.outcomes()] == [
        (2, "ok", URLS[1], 1, 0.25, 10, 5, None, ANSWER),
        (5, "failed", URLS[1], 3, 0.5, None, None, FAILURE, None),
        (9, "unsent", None, 0, None, None, None, budget, None),
    ]


def test_the_last_outcome_stands(tmp_path: Path) -> None:
    """The last outcome of a row that failed and was sent again is the one that counts."""
    with OpenJournal(tmp_path / "j") as journal:
        given_up(journal, 0)
    with OpenJournal(tmp_path / "j", ("http://c",)) as journal:
        answered(journal, 0, attempts=2)
    read = replay(tmp_path / "j")
    assert (read.ok, read.failed) == ({0}, set())
    assert [(o.status, o.endpoint) for o in read.outcomes()] == [("ok", "http://c")]


def test_attempts_are_counted_where_they_ended(tmp_path: Path) -> None:
    """An attempt ends by its own line or by the outcome, once; one that reached no server is not a request sent."""
    with OpenJournal(tmp_path / "j") as journal:
        journal.intent(0, 1, 0)
        journal.attempt(FailedAttempt(0, 1, 0, kind="rate_limited", status=429, latency=0.1))
        journal.intent(0, 2, 1)
        answered(journal, 0, attempts=2, endpoint=1)
        journal.intent(1, 1, 0)
        journal.attempt(FailedAttempt(1, 1, 0, kind="bad_request", status=400, latency=0.1))
        given_up(journal, 1)
        journal.intent(2, 1, 0)
        journal.attempt(FailedAttempt(2, 0, 0, kind="not_connected", status=None, latency=0.1))
        journal.intent(3, 1, 1)
        given_up(journal, 3)
    read = replay(tmp_path / "j")
    assert read.attempts == {0: 2, 1: 1, 2: 0, 3: 1}
    assert read.ended == {
        (URLS[0], "rate_limited"): 1,
        (URLS[1], OK): 1,
        (URLS[0], "bad_request"): 1,
        (URLS[0], "not_connected"): 1,
        (URLS[1], "bad_request"): 1,
    }
    assert not read.ambiguous
    assert not read.lost


def test_rows_in_flight_at_a_kill_are_ambiguous_until_they_end(tmp_path: Path) -> None:
    """Rows in flight at a kill are ambiguous, with their endpoint; once sent again, they are only listed as lost."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        for row in range(3):
            journal.intent(row, 1, 0)
        answered(journal, 0)
    sent = [LostRequest(1, 1, URLS[0]), LostRequest(2, 1, URLS[0])]
    first = replay(path)
    assert (first.ambiguous, first.lost) == ({1: sent[0], 2: sent[1]}, sent)
    with OpenJournal(path, URLS[::-1]) as journal:
        assert replay(path).ambiguous == first.ambiguous, "a sitting that did nothing changes nothing"
        journal.intent(1, 2, 0)
        answered(journal, 1, attempts=2)
        given_up(journal, 2, error=ErrorInfo(kind="ambiguous", message=""))
    later = replay(path)
    assert (later.ambiguous, later.lost) == ({}, sent)
    assert later.ended == {(URLS[0], OK): 1, (URLS[0], LOST): 2, (URLS[1], OK): 1}


def test_a_damaged_intent_makes_its_row_ambiguous(tmp_path: Path) -> None:
    """A row that only a damaged line names is ambiguous, since it may have been sent; the note names file and line."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        journal.intent(12, 1, 0)
        journal.intent(13, 1, 0)
        answered(journal, 13)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"[12,1,0]", b"[12,2,0]"))
    read = replay(path)
    assert read.ambiguous == {12: LostRequest(12, 0, None)}
    assert read.ok == {13}
    assert read.notes == [f"{path}:2: the checksum is wrong, the line is skipped"]


def test_a_damaged_newline_costs_no_answer(tmp_path: Path) -> None:
    """The lines before and after a damaged newline are whole and count, each at its own place in the file."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        answered(journal, 1)
        answered(journal, 2, response=b'{"n":2}')
    data = bytearray(path.read_bytes())
    data[data[: data.rindex(b"crc")].rindex(b"\n")] = 0
    path.write_bytes(data)
    read = replay(path)
    assert read.ok == {1, 2}
    assert [o.response for o in read.outcomes()] == [ANSWER, b'{"n":2}']
    assert not read.ambiguous
    assert read.notes


def test_a_damaged_last_newline_costs_no_answer(tmp_path: Path) -> None:
    """A last line that lacks only its newline counts, and the next sitting adds the newline."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        answered(journal, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert replay(path).ok == {1}
    with OpenJournal(path) as journal:
        answered(journal, 2)
    assert replay(path).ok == {1, 2}
    assert replay(path).notes == []


def test_lines_of_another_journal_are_left_out(tmp_path: Path) -> None:
    """Lines copied from another journal are ignored, and a note names the journal that they belong to."""
    mine, other = (tmp_path / name / "m.jsonl" for name in ("00000", "00001"))
    for path, row in ((mine, 1), (other, 9)):
        path.parent.mkdir()
        with OpenJournal(path) as journal:
            answered(journal, row)
    mine.write_bytes(other.read_bytes())
    with OpenJournal(mine) as journal:
        answered(journal, 2)
    assert replay(mine).ok == {2}
    assert replay(mine).notes == [f"{mine}: holds lines of journal/00001/m.jsonl, which are left out"]


def test_an_answer_that_looks_like_a_journal_line_is_found_behind_a_damaged_newline(tmp_path: Path) -> None:
    """Behind a damaged newline, a line starts where the checksum holds, not at the last text that looks so."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        answered(journal, 1)
        answered(journal, 2, response=b'{"crc":"00000000","n":2}')
    data = bytearray(path.read_bytes())
    data[data.index(b"\n", data.index(b'"row":1'))] = 0
    path.write_bytes(data)
    assert [o.response for o in replay(path).outcomes()] == [ANSWER, b'{"crc":"00000000","n":2}']


class Event(NamedTuple):
    kind: str
    row: int
    response: bytes


EVENTS = st.builds(
    Event,
    st.sampled_from(["intent", "attempt", "ok", "failed", "unsent", "reopen"]),
    st.integers(0, 5),
    st.sampled_from([ANSWER, b"{}", b'{"x":"},\\"response\\":null"}', b'{"crc":"00000000","y":[1,2]}', b'{"z":\n1}']),
)


@st.composite
def journals(draw: st.DrawFn) -> bytes:
    """The bytes of a journal that the writer can produce."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        sitting = OpenJournal(path)
        journal = sitting.__enter__()
        for kind, row, response in draw(st.lists(EVENTS, max_size=12)):
            match kind:
                case "intent":
                    journal.intent(row, 1, 0)
                case "attempt":
                    journal.attempt(FailedAttempt(row, 1, 1, kind="timeout", status=None, latency=1.0))
                case "ok":
                    answered(journal, row, response=response)
                case "failed":
                    given_up(journal, row)
                case "unsent":
                    journal.outcome(
                        RowOutcome(row, status="unsent", endpoint=None, attempts=0, latency=None, error=FAILURE)
                    )
                case _:
                    sitting.__exit__()
                    sitting = OpenJournal(path)
                    journal = sitting.__enter__()
        sitting.__exit__()
        return path.read_bytes()


def read_back(data: bytes) -> tuple[Replay, dict[int, object]]:
    """The replay of a file with this content, without the file's name, and its outcomes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        path.write_bytes(data)
        read = replay(path)
        outcomes: dict[int, object] = {outcome.row: outcome for outcome in read.outcomes()}
        return read, outcomes


@given(journals(), st.data())
def test_a_truncated_journal_loses_at_most_its_last_line(data: bytes, draw: st.DataObject) -> None:
    """A journal that is cut anywhere reads as its whole lines do, and the torn bytes are counted."""
    cut = draw.draw(st.integers(0, len(data)))
    read, outcomes = read_back(data[:cut])
    whole = data.rindex(b"\n", 0, cut) + 1 if b"\n" in data[:cut] else 0
    if data[cut : cut + 1] == b"\n":
        whole = cut + 1  # only the newline is missing
    expected, expected_outcomes = read_back(data[:whole])
    assert outcomes == expected_outcomes
    assert (read.ok, read.failed, read.ambiguous, read.lost, read.ended) == (
        expected.ok,
        expected.failed,
        expected.ambiguous,
        expected.lost,
        expected.ended,
    )
    assert read.torn == max(0, cut - whole)
    assert bool(read.notes) == bool(read.torn)


@given(journals(), st.data())
def test_any_damaged_byte_is_noticed(data: bytes, draw: st.DataObject) -> None:
    """If any byte changes, there is a note, no outcome is invented, and at most one line is lost.

    A damaged newline costs no line.
    """
    position = draw.draw(st.integers(0, len(data) - 1))
    other = draw.draw(st.integers(0, 255).filter(lambda b: b != data[position]))
    read, outcomes = read_back(data[:position] + bytes([other]) + data[position + 1 :])
    assert len(read.notes) >= 1
    start = data.rfind(b"\n", 0, position) + 1
    end = data.index(b"\n", position) + 1
    _, without = read_back(data if data[position] == ord("\n") else data[:start] + data[end:])
    header_damaged = b'"journal"' in data[start:end]
    assert outcomes.keys() == without.keys()
    if not header_damaged:
        assert outcomes == without


@given(journals())
def test_reopening_a_journal_changes_no_outcome(data: bytes) -> None:
    """Opening a journal for another sitting changes none of its outcomes, ambiguous rows and lost requests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "j"
        path.write_bytes(data)
        before = replay(path)
        with OpenJournal(path):
            pass
        after = replay(path)
    assert (before.ok, before.failed, before.ambiguous, before.lost) == (
        after.ok,
        after.failed,
        after.ambiguous,
        after.lost,
    )
