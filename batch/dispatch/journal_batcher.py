"""Batches journal lines of several rows into one write(2)."""

import asyncio
from collections.abc import Callable

from batch.dispatch.ports import JournalPort
from batch.errors import StorageError


class JournalBatcher:
    """Flushes journals before a request is sent, and before the event loop waits.

    The outcome of one row and the intent of the next share a write(2). Each write costs a system call and a release of
    the interpreter's lock, for which the HTTP client's thread competes.

    An answer is only in memory until the next request goes out, at most for the rest of the turn of the loop in which
    it came, and never while the process waits or reads. A kill in that time leaves its row ambiguous, as does a kill
    between an answer's arrival and its journal line.
    """

    def __init__(self, on_error: Callable[[StorageError], None]) -> None:
        """
        Args:
            on_error: called if lines that waited for the end of a turn could not be written.
        """
        self._loop = asyncio.get_running_loop()
        self._on_error = on_error
        # Journals with unwritten lines, in the order in which the first of these were added.
        self._waiting: dict[JournalPort, None] = {}
        self._turn_begun = False

    def add(self, journal: JournalPort) -> None:
        """A line is being added to this journal."""
        self._waiting[journal] = None
        if not self._turn_begun:
            self._turn_begun = True
            self._loop.call_soon(self._end_turn)

    def write(self) -> None:
        """Write all waiting lines. If that fails, this call and each later one raises StorageError."""
        for journal in self._waiting:
            journal.flush()
        # Not reached if a write failed: then no row of any journal may be trusted or sent any more.
        self._waiting.clear()

    def _end_turn(self) -> None:
        self._turn_begun = False
        try:
            self.write()
        except StorageError as error:
            self._on_error(error)
