"""What the command line sets for every case."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.limits.clients.batch import Client


@dataclass(frozen=True)
class Settings:
    """How much of a case is run, and with which clients."""

    scale: float = 1.0
    """Multiplies rows and waits. Below 1 a case only shows that it runs; its figures mean nothing."""
    longest_window: Literal[1, 10, 60] = 60
    """In seconds; longer windows are left out or made this short."""
    peers: bool = True
    """Whether the other clients run too."""
    curator: str | None = None
    """Path of a Python interpreter that has Curator."""

    def scaled(self, count: float) -> int:
        """`count` rows or seconds times the scale, rounded, at least 1."""
        return max(1, round(count * self.scale))

    def chosen(self, clients: Sequence[Client]) -> Sequence[Client]:
        """The clients to run: all of them, or only the first, which is batchrouter."""
        return clients if self.peers else clients[:1]
