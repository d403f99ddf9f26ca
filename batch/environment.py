"""Keys and the wall clock, passed in by the caller: `batch/` reads no environment variables and no clock."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from batch.clock import WallClock

Keys = Callable[[str], str | None]
"""Returns the value of an environment variable, or what `access.key_reference` names; never stored in a spec.

Raises SpecError, with the reason, if a file cannot be read or a command fails.
"""


@dataclass(frozen=True, slots=True)
class SpendingRecord:
    """Where a router that calls endpoints records what it spends, and how much that may be."""

    log: Path
    """File of a SpendingLog."""
    cap: Decimal | None = None
    """Most dollars that the log may come to, earlier sittings included; `None`: no budget."""


@dataclass(frozen=True, slots=True)
class Environment:
    """Keys and the wall clock. Its functions are pickled by reference, so no key travels between processes."""

    keys: Keys
    wall: WallClock
    spending: SpendingRecord | None = None
    """`None`: spending is recorded nowhere."""


NO_ENVIRONMENT = Environment(keys=lambda name: None, wall=lambda: 0.0)
"""For routers that call no endpoint."""
