"""How a command ends: its exit status, and each error as one line on standard error."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from batch.errors import BatchRouterError, EmbedderError, SpecError, StorageError
from jobs.terminal.streams import lasting_streams

RESUMES = "to resume"
"""Why to rerun a command that resumes after it was interrupted."""


class Exit(IntEnum):
    """Exit statuses, as docs/command-line.md promises them."""

    OK = 0
    SOME_NOT_OK = 1
    WRONG = 2
    STOPPED = 3
    INTERRUPTED = 130


@contextmanager
def errors_as_lines(then: str = "to start over") -> Iterator[None]:
    """Print our errors, and an interruption, as lines on standard error, and end the command with their exit status.

    `then` is why to rerun the same command after it was interrupted.
    """
    from jobs.environment import interrupts
    from jobs.stopped import StoppedError

    try:
        with interrupts(_interrupt):
            yield
    except StoppedError as error:
        _fail(error, Exit.INTERRUPTED if error.interrupted else Exit.STOPPED)
    except (StorageError, EmbedderError) as error:
        _fail(error, Exit.STOPPED)
    except SpecError as error:
        _fail(error, Exit.WRONG)
    except KeyboardInterrupt:
        _print_error(f"interrupted; rerun the same command {then}")
        raise typer.Exit(Exit.INTERRUPTED) from None


def status_of(app: typer.Typer) -> int:
    """Run the command that the command line names; its exit status."""
    with lasting_streams() as out:
        status = _status_of(app)
        out.flush()
        if out.failure is not None:
            _print_error(
                f"standard output cannot be written: {out.failure.strerror}; rerun the same command to print it again"
            )
            status = Exit.STOPPED
    return status


def _status_of(app: typer.Typer) -> int:
    try:
        # Outside its standalone mode click returns the status that a command ended with.
        return app(standalone_mode=False) or Exit.OK
    except typer.Abort:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001  the outermost edge
        # Click's own usage errors print themselves. Any other exception is a bug, and its whole trace is printed.
        # Python would then exit with 1, the status of a run that has finished with results.
        show: Callable[[], None] | None = getattr(error, "show", None)
        if show is None:
            traceback.print_exc()
            _print_error(f"this is a bug of batchrouter's; rerun the same command {RESUMES}")
            return Exit.STOPPED
        show()
        return Exit.WRONG


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _fail(error: BatchRouterError, status: Exit) -> NoReturn:
    _print_error(str(error))
    raise typer.Exit(status) from error


def _print_error(text: str) -> None:
    # Only "\n" separates our lines: the stream escapes every other line separator, which may come from foreign text.
    for line in text.split("\n"):
        sys.stderr.write(f"batchrouter: {line}\n")
