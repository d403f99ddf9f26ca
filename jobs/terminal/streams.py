"""Standard streams whose failure does not stop a run: they may be closed, full, or without a reader.

Everything written to them is made printable first, since names, paths and servers' words may hold escape sequences.
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

# Errors of a pipe whose reader has ended, as in `| head`, and of a closed terminal: no reader is left to inform.
_NO_READER = frozenset({errno.EPIPE, errno.EIO})

_ESCAPES = "batchrouter-escapes"


class LastingStream:
    """A text stream that never fails: after the first error it drops what is written to it.

    Attributes:
        failure: the first error; `None` if there was none, or if only the reader has gone.
        styled: the same stream for a console, which makes texts printable itself and adds colours.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None
        self.styled = _StyledStream(self)

    def write(self, text: str) -> int:
        """Write text like any text stream, with unprintable characters escaped; never raises OSError."""
        self.write_as_it_is(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each line with `write`."""
        for line in lines:
            self.write(line)

    def write_as_it_is(self, text: str) -> int:
        """Write text without escaping anything: only for text in which all escape sequences are ours."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def flush(self) -> None:
        """Flush like any text stream; never raises OSError."""
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if error.errno not in _NO_READER:
            self.failure = self.failure or error
        # Python writes the rest of the buffer at exit, where it would fail again.
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _StyledStream:
    """A stream for a console: it writes without escaping, and is otherwise the lasting stream."""

    def __init__(self, stream: LastingStream) -> None:
        self._stream = stream
        self.write = stream.write_as_it_is

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_streams() -> Iterator[LastingStream]:
    """Replace standard output and error by lasting streams inside the block; yields that of standard output."""
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
    """Have standard output and error escape characters that their encoding lacks, as with ASCII under cron.

    The escapes are those of JSON. Python's own `backslashreplace` writes \\xe9, which is not valid JSON.
    """
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        # In tests and notebooks standard streams may be other objects that can be written to.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def open_closed_streams() -> None:
    """Open /dev/null in place of the standard streams that the process was started without.

    Otherwise the next files that are opened get their numbers, and a library's messages on standard error end up in the
    middle of a journal.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.open(os.devnull, os.O_RDWR)
    # Python has no stream object for a descriptor that was closed when it started.
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  lives as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  so does this
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  and this
