"""The log of what embeddings cost survives kills, and damage to it is always reported."""

from decimal import Decimal
from pathlib import Path

import pytest

from batch.costs.prices import Price
from batch.errors import StorageError
from batch.routers.embedders.spending_log import SpendingLog, read_spending

PRICE = Price(Decimal("2E-8"), Decimal(0))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of one sitting: 32 texts were sent and answered, with 900 tokens."""
    path = tmp_path / "run" / "embeddings.jsonl"
    with SpendingLog(path, "embed-small", PRICE) as written:
        written.sent(32, 5120)
        written.flush()
        written.ended(32, 5120, 900)
    return path


def test_what_was_answered_is_charged_as_counted(log: Path) -> None:
    """900 tokens cost their number times $0.02 per million."""
    spending = read_spending(log)
    assert (spending.model, spending.inputs, spending.tokens, spending.in_doubt) == ("embed-small", 32, 900, 0)
    assert spending.usd == Decimal("0.000018")
    assert spending.is_complete


def test_without_a_log_nothing_was_spent(tmp_path: Path) -> None:
    """A run without an embedder has no such file."""
    assert read_spending(tmp_path / "absent").usd == 0


def test_what_was_in_flight_at_a_kill_is_charged_at_its_bound(log: Path) -> None:
    """The process is killed before ten texts are answered; the next sitting sends them again, and both count."""
    killed = SpendingLog(log, "embed-small", PRICE)
    killed.sent(10, 1000)
    killed.close()
    assert read_spending(log).in_doubt == 10
    with SpendingLog(log, "embed-small", PRICE) as written:
        written.sent(10, 1000)
        written.flush()
        written.ended(10, 1000, 100)
    spending = read_spending(log)
    assert (spending.inputs, spending.in_doubt, spending.tokens) == (52, 10, 900 + 1000 + 100)


def test_nothing_is_sent_that_a_flush_has_not_written(log: Path) -> None:
    """The line is in the file when `flush` returns, before the log is closed."""
    written = SpendingLog(log, "embed-small", PRICE)
    written.sent(7, 70)
    before = log.stat().st_size
    written.flush()
    assert log.stat().st_size > before
    written.close()


def test_each_sitting_has_its_own_price(log: Path) -> None:
    """A later price does not change what was spent before, and tokens without a price make the total incomplete."""
    with SpendingLog(log, "embed-small", None) as written:
        written.sent(1, 10)
        written.ended(1, 10, 4)
    spending = read_spending(log)
    assert spending.usd == Decimal("0.000018")
    assert not spending.is_complete
    assert spending.tokens == 904


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_counts_at_most_as_in_flight(log: Path, cut: int) -> None:
    """A kill within a write can lose only the end of a request, whose upper bound is then charged."""
    log.write_bytes(log.read_bytes()[:-cut])
    assert read_spending(log).tokens == (900 if cut == 1 else 5120)
    with SpendingLog(log, "embed-small", PRICE) as written:
        written.sent(1, 10)
        written.ended(1, 10, 5)
    assert read_spending(log).tokens == (905 if cut == 1 else 5125)


@pytest.mark.parametrize("damage", [b"{", b"[1]", b'{"tokens": "9"}', b'{"other": 1}', b'{"model": "m"}', b"\xff"])
def test_a_damaged_line_is_named_by_its_number(log: Path, damage: bytes) -> None:
    """The damaged line's content is unknown, so reading the log fails instead of giving a wrong total."""
    header, *rest = [line for line in log.read_bytes().splitlines() if line]
    log.write_bytes(b"\n".join([header, damage, *rest]) + b"\n")
    with pytest.raises(StorageError, match=r"embeddings\.jsonl is damaged in its 2\. line.*delete it to go on"):
        read_spending(log)
