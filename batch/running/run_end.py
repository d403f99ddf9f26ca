"""The result of `Pipeline.run`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a sitting ended."""

    finished: bool
    """Every row has its outcome and every shard is committed."""
    interrupted: bool
    """The user asked it to stop before that."""
    notes: tuple[str, ...]
    """One line each: models that stalled, endpoints that went out."""
    halted: str | None = None
    """Why the input or the job could no longer be used after something had been sent; the answers are stored."""
