"""Cutoffs for an input: what `calibrate` prints."""

from schemas.base import Spec


class CalibratedCutoff(Spec):
    """The cutoff that comes nearest to sending a share of the scored rows to the strongest model."""

    strong: float
    """The share that was asked for, 0 to 1."""

    cutoff: float
    """Scores from here on go to the strongest model."""

    sends: float
    """The share that it sends there of the rows that were looked at."""

    rows: int
    """So many rows."""

    tied: int
    """Rows with one and the same score where the share would end, which no cutoff can part; 0: none."""


class Calibration(Spec):
    """Cutoffs for a job's input; nothing was sent."""

    name: str
    """The job's name."""

    router: str
    """The router's kind."""

    total: int
    """Rows in the input."""

    sampled: int | None = None
    """Rows looked at, when not all were."""

    scored: int
    """Of the rows looked at, those that a cutoff decides: neither invalid nor repeated, nor with a model, or a cutoff,
    of their own."""

    strongest: str
    """The model that rows from the cutoff on go to."""

    cutoffs: tuple[CalibratedCutoff, ...]
    """In the order that was asked for."""

    notes: tuple[str, ...] = ()
    """One line each: what scoring cost."""
