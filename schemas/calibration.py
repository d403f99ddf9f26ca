"""What `calibrate` prints: cutoffs for an input."""

from schemas.base import Spec


class CalibratedCutoff(Spec):
    """The cutoff that comes closest to sending a given share of the scored rows to the strongest model."""

    strong: float
    """The requested share, from 0 to 1."""

    cutoff: float
    """Rows with this score or a higher one go to the strongest model."""

    sends: float
    """The share of the scored rows that the cutoff sends to the strongest model."""

    rows: int
    """The number of these rows."""

    tied: int
    """Rows of equal score that the requested share would split, which no cutoff can do; 0: none."""


class Calibration(Spec):
    """Cutoffs for a job's input; nothing was sent."""

    name: str
    """The job's name."""

    router: str
    """The router's kind."""

    total: int
    """Rows in the input."""

    sampled: int | None = None
    """Rows that were read, if a sample was taken."""

    scored: int
    """Of the rows that were read, those that a cutoff decides about: rows that are neither invalid nor repeated, and
    that have no model and no cutoff of their own."""

    strongest: str
    """The strongest model."""

    cutoffs: tuple[CalibratedCutoff, ...]
    """One for each requested share, in the order of the command line."""

    notes: tuple[str, ...] = ()
    """What scoring cost, one line each."""
