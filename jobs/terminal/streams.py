"""Standard streams that may be closed, full, or read by nobody any more: a failing one must not stop a run.

Whatever is written to them is made printable first: names, paths and servers' words may hold escape sequences.
"""

import codecs
import errno
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from jobs.terminal.printable import printable

# A pipe whose reader is gone, as in `| head`, and a terminal that was closed: nobody is left to be told.
_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO})

_ESCAPES = "batchrouter-escapes"


class LastingStream:
    """A text stream that goes on where it cannot be written: what comes after that is dropped.

    Attributes:
        failure: why, where somebody may want to know; `None` also where nobody is left to read.
        styled: the same stream for a console that makes texts printable itself, and adds colours.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        self.styled = _StyledStream(self)

    def write(self, text: str) -> int:
        """As of a text stream, but never an OSError; what cannot be printed is escaped."""
        self.write_as_it_is(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """As of a text stream, with `write`."""
        for line in lines:
            self.write(line)

    def write_as_it_is(self, text: str) -> int:
        """Write with escape sequences: for what is ours from beginning to end."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """As of a text stream, but never an OSError."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno not in _NOBODY_READS:
            self.failure = self.failure or error
        # What is left in the buffer is written again at exit, and would fail again.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _StyledStream:
    """What a console writes to; all but the writing is the lasting stream's."""

    def __init__(self, stream: LastingStream) -> None:
        self._stream = stream
        self.write = stream.write_as_it_is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Have standard output and error last while the block runs; yields standard output."""
    open_closed_streams()
    _escape_what_encodings_lack()
    before = sys.stdout, sys.stderr
    out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _escape_what_encodings_lack() -> None:
    """Have standard output and error write what their encoding lacks with backslashes, as under cron's ASCII.

    Python's own `backslashreplace` writes \\xe9, which is no JSON.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        # Where it is not a file, it may be anything that can be written to.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def open_closed_streams() -> None:
    """Lead standard streams that the process was started without to nowhere.

    Their numbers would go to the next files that are opened: what a library says on standard error would be in the
    middle of a journal.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
    # Python has no stream for what was closed when it started.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  lives as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  so does this
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  and this
