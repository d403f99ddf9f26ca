"""Log records of `batchrouter.*`: lines on standard error (`--verbose`) and in a file (`--log-file`).

Without these options the records are discarded. A line holds the UTC time, level, logger and message:

    2026-03-01T02:14:07.512Z INFO batchrouter.dispatch.health: http://10.0.0.7/v1 is cooling down for 10 s
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer

from batch.errors import BatchRouterError, SpecError
from jobs.environment import root_logger
from jobs.terminal.printable import printable

_logger = logging.getLogger("batchrouter.jobs")


@contextmanager
def log_records(version: str, *, verbose: bool, log_file: Path | None) -> Iterator[None]:
    """Write the records of the block to standard error, to a file, to both or to neither.

    Args:
        version: of batchrouter, for the first record.
        verbose: write records from INFO on to standard error.
        log_file: append records from DEBUG on to this file.

    Raises:
        SpecError: the file cannot be opened.
    """
    root = root_logger()
    handlers: list[logging.Handler] = []
    if log_file is not None:
        handlers.append(_FileHandler(log_file))
    if verbose:
        handlers.append(_StandardErrorHandler())
    if not handlers:
        yield
        return
    before = root.level, root.propagate
    root.setLevel(min(handler.level for handler in handlers))
    # A library that configures Python's root logger would print the records a second time.
    root.propagate = False
    for handler in handlers:
        root.addHandler(handler)
    try:
        _logger.info("batchrouter %s starts", version)
        yield
        _logger.info("ends with status 0")
    except typer.Exit as ended:
        _logger.info("ends with status %d", ended.exit_code)
        raise
    except BatchRouterError as error:
        _log_error(str(error))
        raise
    except KeyboardInterrupt:
        _log_error("interrupted")
        raise
    except Exception as error:
        # Only the class: the message of an exception that we do not know may quote a prompt.
        _log_error(f"{type(error).__name__}, a bug; its trace is on standard error")
        raise
    finally:
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(before[0])
        root.propagate = before[1]


def _log_error(text: str) -> None:
    """Log, for the log file only, the lines that the command prints on standard error anyway."""
    for line in text.split("\n"):
        _logger.error("%s", line, extra={"already_printed": True})


class _LineFormatter(logging.Formatter):
    """One line a record, whatever is in its message. Traces are left out: they may quote prompts."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message = printable(record.getMessage()).replace("\n", "\\n")
        return f"{at} {record.levelname} {record.name}: {message}"


class _StandardErrorHandler(logging.Handler):
    """Prints records on whatever is standard error then: the live progress display replaces it while it is shown."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(_LineFormatter())
        self.addFilter(lambda record: not getattr(record, "already_printed", False))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001  as in logging's handlers: a record that cannot be printed stops no work
            self.handleError(record)


class _FileHandler(logging.FileHandler):
    """Appends records to a file. If the disk fills up, one line on standard error says so and the run goes on."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise SpecError(f"--log-file {path}: cannot be written: {error.strerror}; give another path") from error
        self._path = path
        self._failed = False
        self.setLevel(logging.DEBUG)
        self.setFormatter(_LineFormatter())

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the base class's name
        error = sys.exception()
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            sys.stderr.write(
                f"batchrouter: --log-file {self._path}: cannot be written any more: {error.strerror}; "
                "the command goes on without it\n"
            )

    def close(self) -> None:
        try:
            super().close()
        except OSError:
            if not self._failed:
                raise
