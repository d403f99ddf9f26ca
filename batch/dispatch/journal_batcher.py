"""Puts into the kernel together what journals are told of several rows."""

import asyncio
from collections.abc import Callable

from batch.dispatch.ports import JournalPort
from batch.errors import StorageError


class JournalBatcher:
    """Flushes journals before a request is sent, and before the event loop waits.

    The outcome of one row and the intent of the next share a write(2), which takes a system call and the interpreter's
    lock: it is given up for the call, and the HTTP client's thread waits for it.

    An answer is in memory alone until the next request goes out, at most for the rest of the turn of the loop in which
    it came; never while the process waits, or reads. A kill in that time leaves its row ambiguous, as one does between
    an answer's arrival and its line.
    """

    def __init__(self, on_error: Callable[[StorageError], None]) -> None:
        """
        Args:
            on_error: told where what waited for the end of a turn could not be written.
        """
        self._loop = asyncio.get_running_loop()
        self._on_error = on_error
        # In the order in which they were told something.
        self._waiting: dict[JournalPort, None] = {}
        self._turn_begun = False

    def add(self, journal: JournalPort) -> None:
        """This journal is being told something."""
        self._waiting[journal] = None
        if not self._turn_begun:
            self._turn_begun = True
            self._loop.call_soon(self._end_turn)

    def write(self) -> None:
        """Write what waits. Raises StorageError, then and whenever it is called again, where that is not possible."""
        for journal in self._waiting:
            journal.flush()
        # Not where one failed: then no row may be trusted, or sent, whichever journal it is in.
        self._waiting.clear()

    def _end_turn(self) -> None:
        self._turn_begun = False
        try:
            self.write()
        except StorageError as error:
            self._on_error(error)
