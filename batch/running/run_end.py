"""How a sitting ended."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a sitting ended."""

    finished: bool
    """Every row has its end and every shard is committed."""
    interrupted: bool
    """It was asked to stop before that."""
    notes: tuple[str, ...]
    """One line each: models that stalled, endpoints that went out."""
    halted: str | None = None
    """Why the input or the job could not be used any more after something had been sent; what was answered is kept."""
