"""What `status` prints: how far a run has come."""

from typing import NamedTuple

from schemas.base import Spec


class Wait(NamedTuple):
    """All endpoints of a model have asked for a pause."""

    until: float
    """No endpoint may be asked before this moment, in seconds since 1970."""

    words: str
    """Which endpoint may be asked first then, and what it said."""


class RunStatus(Spec):
    """How far a run has come."""

    job: str
    """The job's name."""

    running: bool
    """Is a process working on it?"""

    finished: bool
    """Is there a report?"""

    shards: int
    """Parts that the input is cut into; 0: it has not been cut yet."""

    rows: int
    """Rows in the input."""

    scored: int
    """Rows read and scored."""

    routed: int
    """Rows that a model was chosen for."""

    statuses: dict[str, int]
    """Rows that have ended, by status."""

    ambiguous: int
    """Rows whose request is in flight now, or was in flight when a run was killed."""

    sittings: int
    """How often a process has worked on it."""

    wall_seconds: float
    """How long these processes worked, together."""

    waits: dict[str, Wait] = {}
    """Models whose endpoints have all asked for a pause."""
