"""How fast an endpoint answers, as its balancer sees it."""

import math

from batch.clock import Clock

# Finagle's and brpc's default: what happened so long ago counts 1/e as much.
DECAY_SECONDS = 10.0


class Speed:
    """Latency per token of the answer, and the share of attempts that failed, both decaying with time.

    Per token, since otherwise an endpoint that happened to get short answers would look fast.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._as_of = clock()
        self.peak: float | None = None
        """Seconds per token: jumps up to a slower answer at once and comes down slowly. `None`: nothing answered."""
        self.mean: float | None = None
        """Seconds per token, averaged."""
        self.error_share = 0.0
        """Of the attempts that ended lately."""
        self._errors = self._ends = 0.0

    def answered(self, latency: float, tokens: int) -> None:
        """A good answer of so many tokens."""
        self._observe(latency / max(1, tokens), failed=False)

    def failed(self, latency: float) -> None:
        """An attempt that ended in the endpoint's error."""
        # A fast error must not look like a fast answer.
        punished = max(latency, _ERROR_FACTOR * (self.peak or 0.0))
        self._observe(punished, failed=True)

    def _observe(self, cost: float, *, failed: bool) -> None:
        now = self._clock()
        kept = math.exp(-(now - self._as_of) / DECAY_SECONDS)
        self._as_of = now
        self._ends = self._ends * kept + 1
        self._errors = self._errors * kept + failed
        self.error_share = self._errors / self._ends
        self.peak = cost if self.peak is None or cost > self.peak else self.peak * kept + cost * (1 - kept)
        if not failed:
            self.mean = cost if self.mean is None else self.mean + (cost - self.mean) / min(self._ends, 100.0)


_ERROR_FACTOR = 4.0
