"""What the command line says, for every case."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.limits.clients.batch import Client


@dataclass(frozen=True)
class Settings:
    """How much is run, and with whom."""

    scale: float = 1.0
    """Fewer rows and shorter waits, to see whether a case runs; only 1 gives figures that count."""
    longest_window: Literal[1, 10, 60] = 60
    """Seconds; longer windows are left out."""
    peers: bool = True
    """Run the others too?"""
    curator: str | None = None
    """An interpreter that has Curator."""

    def scaled(self, count: float) -> int:
        """So many rows or seconds, less where less was asked."""
        return max(1, round(count * self.scale))

    def chosen(self, clients: Sequence[Client]) -> Sequence[Client]:
        """Ours comes first."""
        return clients if self.peers else clients[:1]
