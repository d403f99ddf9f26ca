"""Time, passed in.

The dispatcher's clock is its event loop's own `time`, so that a virtual-time loop in tests moves timers and
readings together. Nothing in `batch/` asks the `time` module.
"""

from collections.abc import Callable

Clock = Callable[[], float]
"""Monotonic seconds since some fixed instant."""

WallClock = Callable[[], float]
"""Seconds since the epoch; only for dates that servers send."""
