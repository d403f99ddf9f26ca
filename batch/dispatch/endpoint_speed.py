"""How fast and how reliably an endpoint answers, as its balancer sees it."""

import math

from batch.clock import Clock

# Finagle's and brpc's default: what happened so long ago counts 1/e as much.
DECAY_SECONDS = 10.0
# Where attempts take long, that would forget each before the next one ends: so many of them are remembered at least.
_ATTEMPTS_REMEMBERED = 2.0

# What precedes an answer takes as long as so many of its tokens (half a second at 50 tokens per second): without it,
# an endpoint that gave a short answer would look slow.
FIRST_TOKEN = 25


class EndpointSpeed:
    """Seconds per token, and the share of attempts that failed, by what happened lately.

    Per token, since an endpoint that happened to get short answers would look fast otherwise.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._decay = DECAY_SECONDS
        self._ended_at = self._peak_at = clock()
        self._peak: float | None = None
        # All four fade together.
        self._good = self._bad = self._seconds = self._tokens = 0.0

    def answered(self, latency: float, tokens: int) -> None:
        """A good answer of so many tokens came after so many seconds."""
        self._end(latency)
        work = tokens + FIRST_TOKEN
        self._good += 1
        self._tokens += work
        cost = latency / work
        if self._peak is None or cost > self._peak:
            self._peak = cost
        else:
            self._peak = cost + (self._peak - cost) * self._kept(self._peak_at)
        self._peak_at = self._ended_at

    def failed(self, latency: float) -> None:
        """An attempt ended in the endpoint's error after so many seconds, which gave no token."""
        self._end(latency)
        self._bad += 1

    def peak(self, *, busy: bool) -> float | None:
        """Seconds per token: a slower answer counts at once and is forgotten slowly. `None`: nothing was answered.

        While nothing is under way it fades, so that a slow endpoint is tried again; while something is, its end will
        tell, and one that hangs must not look faster by the second.
        """
        return self._peak if self._peak is None or busy else self._peak * self._kept(self._peak_at)

    @property
    def throughput(self) -> float | None:
        """Tokens per second that a request was under way, failed ones included. `None`: nothing was answered."""
        return self._tokens / self._seconds if self._tokens and self._seconds else None

    @property
    def error_share(self) -> float:
        """Share of the attempts that failed, as if one more had gone well; it fades when nothing more fails."""
        return self._bad / (self._bad + self._good + 1 / self._kept(self._ended_at))

    def _end(self, latency: float) -> None:
        kept = self._kept(self._ended_at)
        self._good *= kept
        self._bad *= kept
        self._seconds = self._seconds * kept + latency
        self._tokens *= kept
        self._ended_at = self._clock()
        self._decay = max(DECAY_SECONDS, _ATTEMPTS_REMEMBERED * latency)

    def _kept(self, since: float) -> float:
        # After a day of nothing the exponential would be zero, and nothing can be divided by it.
        return max(math.exp((since - self._clock()) / self._decay), _LEAST_KEPT)


_LEAST_KEPT = 1e-9
