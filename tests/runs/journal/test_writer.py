"""Appending to a journal."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from batch.errors import StorageError
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.lines import place_of
from batch.runs.journal.writer import Journal
from tests.runs.journals import FAILURE, URLS, OpenJournal, answered, given_up, lines


def test_every_line_is_json_with_a_checksum(tmp_path: Path) -> None:
    """Each call adds one line, which is in the file after a flush and holds the provider's JSON byte for byte."""
    path = tmp_path / "journal" / "m.jsonl"
    with OpenJournal(path) as journal:
        journal.intent(7, 1, 0)
        journal.attempt(FailedAttempt(7, 1, 0, kind="rate_limited", status=429, latency=0.1))
        journal.attempt(FailedAttempt(7, 2, 0, kind="timeout", status=None, latency=600.0, counts=True))
        answered(journal, 7, attempts=3, response='{"text":"naïve \\u2028","n":1e400}'.encode())
        given_up(journal, 8)
        journal.outcome(RowOutcome(9, status="unsent", endpoint=None, attempts=0, latency=None, error=FAILURE))
        journal.flush()
        assert len(lines(path)) == 7
    assert b'"response":' + '{"text":"naïve \\u2028","n":1e400}}\n'.encode() in path.read_bytes()
    header, intent, throttled, late, good, bad, unsent = lines(path)
    assert header["journal"] == {"version": 1, "place": place_of(path), "endpoints": list(URLS)}
    assert intent["intent"] == [7, 1, 0]
    assert throttled["attempt"] == [7, 1, 0, "rate_limited", 429, 0.1, 0]
    assert late["attempt"] == [7, 2, 0, "timeout", None, 600.0, 1]
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    assert good["outcome"] == {"row": 7, "status": "ok", "endpoint": 0, "attempts": 3, "latency": 0.25, **usage}
    assert isinstance(bad["outcome"], dict)
    assert bad["outcome"]["error"] == FAILURE.model_dump()
    assert bad["response"] is None
    assert isinstance(unsent["outcome"], dict)
    assert unsent["outcome"]["endpoint"] is None
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_flushed_together_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome of a row and the intent of the next cost one write(2), and flushing nothing costs none."""
    with OpenJournal(tmp_path / "j") as journal:
        write, sizes = os.write, []

        def counted(descriptor: int, data: bytes) -> int:
            sizes.append(write(descriptor, data))
            return sizes[-1]

        monkeypatch.setattr(os, "write", counted)
        for row in range(10):
            answered(journal, row)
            journal.intent(row + 1, 1, 0)
            journal.flush()
            journal.flush()
            assert len(sizes) == row + 1
        monkeypatch.undo()
    assert [next(reversed(line)) for line in lines(tmp_path / "j")] == ["journal", *["response", "intent"] * 10]


def test_many_answers_do_not_wait_to_be_flushed(tmp_path: Path) -> None:
    """Without any flush, at most 16 KiB and one line are not yet written."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        told = 0
        for row in range(1000):
            answered(journal, row, response=b'{"long":"%b"}' % (b"x" * 1000))
            told += 1000
            assert told - path.stat().st_size <= (16 << 10) + 1000


def test_pretty_printed_answers_stay_on_one_line(tmp_path: Path) -> None:
    """Line breaks between a provider's tokens become spaces."""
    with OpenJournal(tmp_path / "j") as journal:
        answered(journal, 0, response=b'{\r\n  "choices": [\n  ]\n}')
    assert lines(tmp_path / "j")[1]["response"] == {"choices": []}


def test_each_sitting_starts_with_its_endpoints(tmp_path: Path) -> None:
    """Reopening appends a header, which says what endpoint indexes mean from there on."""
    for urls in (URLS, URLS[:1]):
        with OpenJournal(tmp_path / "j", urls) as journal:
            journal.intent(0, 1, 0)
    headers = [line["journal"] for line in lines(tmp_path / "j") if "journal" in line]
    place = place_of(tmp_path / "j")
    assert headers == [
        {"version": 1, "place": place, "endpoints": list(URLS)},
        {"version": 1, "place": place, "endpoints": list(URLS[:1])},
    ]


@pytest.mark.parametrize("kept", [1, 30, 200_000])
def test_a_torn_last_line_is_cut_when_reopened(tmp_path: Path, kept: int) -> None:
    """A torn last line is removed, however long it is, and the lines after it are whole."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        journal.intent(0, 1, 0)
        answered(journal, 1, response=b'{"long":"%b"}' % (b"x" * 300_000))
    checked_content = path.read_bytes()
    before_last = checked_content[: checked_content[:-1].rindex(b"\n") + 1]
    path.write_bytes(checked_content[: len(before_last) + kept])
    with OpenJournal(path):
        pass
    assert path.read_bytes().startswith(before_last)
    assert [next(reversed(line)) for line in lines(path)] == ["journal", "intent", "journal"]


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path: Path) -> None:
    """A last line whose newline is damaged is kept, since its answer is whole."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        answered(journal, 1)
    path.write_bytes(path.read_bytes()[:-1])
    with OpenJournal(path):
        pass
    assert [sorted(line)[1] for line in lines(path)] == ["journal", "outcome", "journal"]


def test_a_failed_write_ends_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk raises a StorageError that names file and reason, and nothing is appended after it."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        with monkeypatch.context() as patch:

            def full(descriptor: int, data: bytes) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(os, "write", full)
            answered(journal, 0)
            journal.intent(1, 1, 0)
            with pytest.raises(StorageError, match=r"cannot append to .*j: No space left on device"):
                journal.flush()
        for _ in range(2):
            with pytest.raises(StorageError, match="No space left"):
                journal.flush()
        journal.intent(2, 1, 0)
        with pytest.raises(StorageError, match="No space left"):
            journal.close()
    assert len(lines(path)) == 1


def test_a_short_write_ends_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a partial write nothing more is appended, and the next sitting cuts the torn line off."""
    path = tmp_path / "j"
    with OpenJournal(path) as journal:
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
            journal.intent(0, 1, 0)
            with pytest.raises(StorageError, match=r"only 10 of \d+ bytes"):
                journal.flush()
        answered(journal, 0)
        with pytest.raises(StorageError, match="only 10"):
            journal.close()
    with OpenJournal(path):
        pass
    assert [line.keys() - {"crc"} for line in lines(path)] == [{"journal"}, {"journal"}]


def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    """A closed journal refuses lines, so that none is written to the file that gets its descriptor number next."""
    with OpenJournal(tmp_path / "j") as journal:
        journal.close()
        journal.close()
        journal.intent(0, 1, 0)
        with pytest.raises(StorageError, match="is closed"):
            journal.flush()


def test_a_journal_that_cannot_be_opened_is_a_storage_error(tmp_path: Path) -> None:
    """A folder or a symbolic link in the journal's place is refused."""
    (tmp_path / "elsewhere").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in (".", "link"):
        with pytest.raises(StorageError, match="cannot open"):
            OpenJournal(tmp_path / name)


class CountingDisk:
    """Replaces fdatasync: records each file's size when it is synced, and fails at sync number `fail_on`."""

    def __init__(self, fail_on: int | None = None) -> None:
        self.sizes: list[int] = []
        self.synced = Event()
        self._fail_on = fail_on

    def __call__(self, descriptor: int) -> None:
        if len(self.sizes) + 1 == self._fail_on:
            self.sizes.append(-1)
            self.synced.set()
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.sizes.append(os.fstat(descriptor).st_size)
        self.synced.set()


def test_what_is_written_is_synced_within_a_window(tmp_path: Path) -> None:
    """Each line is synced within a window, and a journal without new lines is not synced again."""
    disk = CountingDisk()
    path = tmp_path / "j"
    with GroupSync(window_seconds=0.001, sync_file=disk) as group, Journal.open(path, URLS, group) as journal:
        for row in range(20):
            disk.synced.clear()
            journal.intent(row, 1, 0)
            journal.flush()
            assert disk.synced.wait(5)
    assert disk.sizes[-1] == path.stat().st_size
    # One for the header, one for each line; a sync may have caught the header together with the first.
    assert 20 <= len(disk.sizes) <= 22


def test_many_lines_share_a_sync(tmp_path: Path) -> None:
    """Closing syncs the lines that no window has synced yet, once for all of them, before it closes the file."""
    disk = CountingDisk()
    path = tmp_path / "j"
    group = GroupSync(window_seconds=3600, sync_file=disk).start()
    journal = Journal.open(path, URLS, group)
    for row in range(1000):
        journal.intent(row, 1, 0)
    journal.close()
    assert disk.sizes == []
    group.close()
    assert disk.sizes == [path.stat().st_size]


def test_a_failed_sync_ends_every_journal(tmp_path: Path) -> None:
    """After a failed sync every journal refuses lines, nothing is synced again, and closing raises the error too."""
    disk = CountingDisk(fail_on=1)
    group = GroupSync(window_seconds=0.001, sync_file=disk).start()
    one, other = (Journal.open(tmp_path / name, URLS, group) for name in "ab")
    assert disk.synced.wait(5)
    with pytest.raises(StorageError, match=r"cannot sync .*a: Input/output error"):
        wait_for_failure(group, other)
    one.close()
    with pytest.raises(StorageError, match="Input/output error"):
        other.close()
    with pytest.raises(StorageError, match="Input/output error"):
        group.close()
    assert disk.sizes == [-1]


def wait_for_failure(group: GroupSync, journal: Journal) -> None:
    """Write to the journal until it raises: the event is set just before the failure is stored."""
    for row in range(10_000_000):
        journal.intent(row, 1, 0)
        journal.flush()


def test_a_failed_close_ends_every_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If close(2) reports lost data, every journal fails, and no descriptor is closed a second time."""
    group = GroupSync(window_seconds=0.001).start()
    one, other = (Journal.open(tmp_path / name, URLS, group) for name in "ab")
    close, closed, failed = os.close, list[int](), Event()

    def failing(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        if len(closed) == 1:
            failed.set()
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    assert len(opened_in(tmp_path)) == 2
    with monkeypatch.context() as patch:
        # Syncing a folder closes a descriptor too, which must not be counted here.
        patch.setattr("batch.runs.journal.group_fsync.sync", lambda folder: None)
        patch.setattr(os, "close", failing)
        one.close()
        assert failed.wait(5)
        with pytest.raises(StorageError, match=r"cannot close .*a: Disk quota exceeded; make room"):
            group.close()
        other.intent(0, 1, 0)
        with pytest.raises(StorageError, match="Disk quota exceeded"):
            other.close()
    assert len(set(closed)) == len(closed) == 2
    assert opened_in(tmp_path) == []


def opened_in(folder: Path) -> list[str]:
    """The files in a folder that this process has open; other threads may open and close others at any time."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            opened.append(str(descriptor.readlink()))
    return [path for path in opened if path.startswith(f"{folder}/")]


def test_a_round_of_syncs_that_breaks_off_ends_every_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started for a sync, every journal fails, and each file is closed exactly once."""
    begun, ready, refused = Event(), Event(), Event()
    started: list[Thread] = []
    closed: list[int] = []
    start, close = Thread.start, os.close

    def slow(descriptor: int) -> None:
        begun.set()
        assert ready.wait(5)
        if started:
            # The round ends early while this one of its files is still being synced.
            assert refused.wait(5)

    def only_one(thread: Thread) -> None:
        if started:
            refused.set()
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    def count(descriptor: int) -> None:
        closed.append(descriptor)
        close(descriptor)

    group = GroupSync(window_seconds=0.001, sync_file=slow).start()
    with monkeypatch.context() as patch:
        # Syncing a folder closes a descriptor too, which must not be counted here.
        patch.setattr("batch.runs.journal.group_fsync.sync", lambda folder: None)
        patch.setattr(Thread, "start", only_one)
        patch.setattr(os, "close", count)
        one = Journal.open(tmp_path / "a", URLS, group)
        assert begun.wait(5)
        other = Journal.open(tmp_path / "b", URLS, group)
        one.intent(0, 1, 0)
        one.close()
        ready.set()
        assert refused.wait(5)
        with pytest.raises(StorageError, match=r"journals cannot be synced: .*can't start new thread"):
            group.close()
        other.intent(0, 1, 0)
        with pytest.raises(StorageError, match="can't start new thread"):
            other.close()
    assert len(set(closed)) == len(closed) == 2
    assert opened_in(tmp_path) == []


def test_without_syncing_nothing_is_synced(tmp_path: Path) -> None:
    """With `enabled=False` files are closed and never synced."""
    disk = CountingDisk()
    group = GroupSync(enabled=False, sync_file=disk)
    journal = Journal.open(tmp_path / "j", URLS, group)
    journal.intent(0, 1, 0)
    journal.close()
    group.close()
    assert disk.sizes == []
    assert len(lines(tmp_path / "j")) == 2


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Opening and closing a hundred journals leaves no file open."""
    with GroupSync(window_seconds=0.001) as group:
        with Journal.open(tmp_path / "seen", URLS, group):
            assert opened_in(tmp_path) == [str(tmp_path / "seen")]
        for number in range(100):
            with Journal.open(tmp_path / str(number), URLS, group) as journal:
                journal.intent(0, 1, 0)
    assert opened_in(tmp_path) == []
