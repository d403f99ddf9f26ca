"""Carries log records from a Ray actor to the process of the command, where `--verbose` and `--log-file` show them."""

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

_ROOT = "batchrouter"
# Bounds the memory of a process that is not polled for long; polls come ten times a second.
_MOST_RECORDS = 5000

_log = logging.getLogger("batchrouter.running")


class LogLine(NamedTuple):
    """A log record as it travels: its message is formatted already, so whatever it named stays where it is."""

    logger: str
    level: int
    created: float
    """Seconds since the epoch."""
    message: str


class LogBuffer(logging.Handler):
    """Keeps the newest records of `batchrouter.*` in this process until they are taken."""

    def __init__(self, most: int = _MOST_RECORDS) -> None:
        super().__init__()
        self._lines: deque[LogLine] = deque(maxlen=most)
        self._dropped = 0

    def listen(self, level: int) -> None:
        """Keep records of this level and above, and have no other handler of this process see them."""
        root = logging.getLogger(_ROOT)
        root.setLevel(level)
        root.propagate = False
        root.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """As logging.Handler."""
        self._dropped += len(self._lines) == self._lines.maxlen
        self._lines.append(LogLine(record.name, record.levelno, record.created, record.getMessage()))

    def take(self) -> tuple[LogLine, ...]:
        """The records since the last call; a last one says how many were dropped, if any were."""
        self.acquire()
        try:
            lines, dropped = tuple(self._lines), self._dropped
            self._lines.clear()
            self._dropped = 0
        finally:
            self.release()
        if dropped:
            text = f"{dropped} older log records of the dispatcher's process were dropped"
            lines = (*lines, LogLine(_log.name, logging.WARNING, lines[-1].created, text))
        return lines


def level_wanted() -> int:
    """The level from which on this process shows log records of `batchrouter.*`."""
    return logging.getLogger(_ROOT).getEffectiveLevel()


def log_again(lines: Sequence[LogLine]) -> None:
    """Hand records of another process to the loggers of this one, with the times at which they were made."""
    for line in lines:
        logger = logging.getLogger(line.logger)
        if logger.isEnabledFor(line.level):
            record = logger.makeRecord(line.logger, line.level, "", 0, line.message, (), None)
            record.created = line.created
            logger.handle(record)
