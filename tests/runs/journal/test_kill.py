"""What a journal holds after its writer was killed."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from batch.runs.journal.replay import replay

# Writes as a lane does: flushes the outcome of a row with the intent of the next, and only then reports it as stored.
WRITER = """
import sys
from pathlib import Path
from batch.outcomes import RowOutcome
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.journal.writer import Journal
journal = Journal.open(Path(sys.argv[1]), ["http://a"], GroupSync().start())
journal.intent(0, 1, 0)
for row in range(10_000_000):
    journal.outcome(RowOutcome(row, status="ok", endpoint=0, attempts=1, latency=0.1, response=b'{"n":%d}' % row))
    journal.intent(row + 1, 1, 0)
    journal.flush()
    print(row, flush=True)
"""


@pytest.mark.real
def test_no_answer_that_the_journal_took_is_lost_by_a_kill(tmp_path: Path) -> None:
    """After SIGKILL at any instant, every row reported as stored is in the journal, and at most one is ambiguous."""
    path = tmp_path / "j"
    for rows in (1, 50, 700):
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(rows):
                writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read().splitlines()
        said = rows + len(rest)
        read = replay(path)
        assert read.ok >= set(range(said))
        assert len(read.ok) <= said + 1
        assert len(read.ambiguous) <= 1
        assert [outcome.response for outcome in read.outcomes()] == [b'{"n":%d}' % n for n in range(len(read.ok))]
