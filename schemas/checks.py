"""What `check` prints: the state of a job's rows and endpoints before a run."""

from schemas.base import Spec


class EndpointCheck(Spec):
    """What an endpoint said when it was asked for its list of models."""

    model: str
    """Name of the model that it serves."""

    url: str
    """Its name or address."""

    usable: bool
    """Would a run send rows to it?"""

    said: str
    """Its answer, or why there is none, in one line."""


class CheckReport(Spec):
    """What would stop a run of a job, and what its reader should know of it; no prompt was sent."""

    rows: int
    """Rows in the input."""

    invalid: int
    """Rows that could not be sent."""

    faults: tuple[str, ...] = ()
    """One line for each of the first invalid rows."""

    problems: tuple[str, ...] = ()
    """What would stop a run before it sends anything, one line each."""

    warnings: tuple[str, ...] = ()
    """What would not stop a run, but should be known before it starts, one line each."""

    notes: tuple[str, ...] = ()
    """What batchrouter concluded from the input by itself, and what it does not send, one line each."""

    endpoints: tuple[EndpointCheck, ...] = ()
    """In the job's order."""
