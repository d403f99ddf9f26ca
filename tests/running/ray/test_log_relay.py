"""Log records that travel from an actor's process to the command's."""

import logging
from collections.abc import Iterator

import pytest

from batch.running.ray.log_relay import LogBuffer, level_wanted, log_again


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Our top logger; its level and handlers are restored afterwards."""
    root = logging.getLogger("batchrouter")
    before = root.level, root.propagate, list(root.handlers)
    yield root
    root.setLevel(before[0])
    root.propagate, root.handlers[:] = before[1:]


def test_records_are_kept_formatted_from_a_level_on(root: logging.Logger) -> None:
    """Objects named in a record may change afterwards, but the kept text does not; `take` gives each record once."""
    buffer = LogBuffer()
    buffer.listen(logging.INFO)
    named = ["before"]
    logging.getLogger("batchrouter.dispatch.health").warning("it says %s", named)
    named[0] = "after"
    logging.getLogger("batchrouter.running").debug("not wanted")
    (line,) = buffer.take()
    assert (line.logger, line.level, line.message) == (
        "batchrouter.dispatch.health",
        logging.WARNING,
        "it says ['before']",
    )
    assert buffer.take() == ()


def test_the_oldest_records_are_dropped_and_counted(root: logging.Logger) -> None:
    """A buffer that is not polled keeps only its newest `most` records."""
    buffer = LogBuffer(most=3)
    buffer.listen(logging.INFO)
    for number in range(5):
        logging.getLogger("batchrouter.running").info("%d", number)
    messages = [line.message for line in buffer.take()]
    assert messages == ["2", "3", "4", "2 older log records of the dispatcher's process were dropped"]
    logging.getLogger("batchrouter.running").info("5")
    assert [line.message for line in buffer.take()] == ["5"]


def test_records_are_logged_again_with_their_own_times(root: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """The logger of the same name logs each record, if this process wants its level."""
    buffer = LogBuffer()
    buffer.listen(logging.DEBUG)
    for level in (logging.DEBUG, logging.ERROR):
        logging.getLogger("batchrouter.dispatch.pool").log(level, "at %d", level)
    lines = [line._replace(created=1000.5) for line in buffer.take()]
    root.removeHandler(buffer)
    root.propagate = True
    with caplog.at_level(logging.INFO, "batchrouter"):
        assert level_wanted() == logging.INFO
        log_again(lines)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage(), record.created) == (
        "batchrouter.dispatch.pool",
        logging.ERROR,
        "at 40",
        1000.5,
    )
