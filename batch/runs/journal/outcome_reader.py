"""Single outcomes, read from a journal in any order."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import orjson

from batch.runs.journal.lines import RESPONSE_MARK
from batch.storage.atomic import storage_error
from schemas.results import ErrorInfo, Status

OUTCOME_START = len(b'"outcome":')

Endpoints = tuple[str, ...]
"""The URLs that endpoint indexes stand for, from the header of a sitting."""

_CLOSED = -1


class JournaledOutcome(NamedTuple):
    """How a row ended, as its journal has it."""

    row: int
    status: Status
    endpoint: str | None
    """The URL that the last attempt went to."""
    attempts: int
    """Requests sent for the row, over all sittings."""
    latency: float | None
    """Seconds of the last attempt."""
    prompt_tokens: int | None
    completion_tokens: int | None
    error: ErrorInfo | None
    response: bytes | None
    """The provider's JSON as it came; `None` if there was no answer."""


class OutcomePlace(NamedTuple):
    """Where in a journal an outcome is."""

    offset: int
    """Of the line's content, in bytes."""
    length: int
    """Bytes of the content."""
    endpoints: Endpoints
    """What the outcome's endpoint index refers to."""


class OutcomeReader:
    """Reads outcomes straight from the file. A context manager that closes it."""

    def __init__(self, path: Path, places: Mapping[int, OutcomePlace]) -> None:
        """Open the journal at `path`, unless it has no outcomes.

        Args:
            path: the journal.
            places: by row, where its standing outcome is.

        Raises:
            StorageError: the file cannot be opened.
        """
        self._path = path
        self._places = places
        self._descriptor = _CLOSED
        if places:
            try:
                self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise storage_error(path, error, "read") from error

    def __contains__(self, row: int) -> bool:
        return row in self._places

    def read(self, row: int) -> JournaledOutcome:
        """The standing outcome of `row`. Raises KeyError if it has none, StorageError if the file cannot be read."""
        offset, length, endpoints = self._places[row]
        try:
            content = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise storage_error(self._path, error, "read") from error
        return parse_outcome(content, endpoints)

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        if self._descriptor != _CLOSED:
            os.close(self._descriptor)
            self._descriptor = _CLOSED

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_outcome(content: bytes, endpoints: Endpoints) -> JournaledOutcome:
    """The outcome in the content of a sound line."""
    end = content.index(RESPONSE_MARK)
    head = orjson.loads(content[OUTCOME_START : end + 1])
    response = content[end + len(RESPONSE_MARK) : -1]
    error = head.get("error")
    endpoint = head["endpoint"]
    return JournaledOutcome(
        head["row"],
        head["status"],
        endpoints[endpoint] if endpoint is not None and endpoint < len(endpoints) else None,
        head["attempts"],
        head["latency"],
        head["prompt_tokens"],
        head["completion_tokens"],
        None if error is None else ErrorInfo(**error),
        None if response == b"null" else response,
    )
