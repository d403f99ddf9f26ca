"""How fast and how reliably an endpoint answers, as its balancer sees it."""

import math

from batch.clock import Clock

# An attempt this long ago counts 1/e as much as one now: the default of Finagle and brpc.
DECAY_SECONDS = 10.0
# Slow attempts would be forgotten before the next one ends, so the memory lasts at least this many attempts.
_ATTEMPTS_REMEMBERED = 2.0

# The time before an answer's first token counts as this many tokens (half a second at 50 tokens per second). Without
# it, an endpoint that gave a short answer would look slow.
FIRST_TOKEN = 25


class EndpointSpeed:
    """Recent seconds per token, and the recent share of attempts that failed.

    Time is counted per token, since an endpoint that happened to get short answers would otherwise look fast.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._decay = DECAY_SECONDS
        self._ended_at = self._peak_at = clock()
        self._peak: float | None = None
        # Sums that decay together.
        self._good = self._bad = self._seconds = self._tokens = 0.0

    def answered(self, latency: float, tokens: int) -> None:
        """An attempt brought a good answer of `tokens` tokens after `latency` seconds."""
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
        """An attempt ended after `latency` seconds in an error of the endpoint, without a token."""
        self._end(latency)
        self._bad += 1

    def peak(self, *, busy: bool) -> float | None:
        """Peak seconds per token: a slower answer counts at once and is forgotten slowly. `None`: no answer yet.

        Args:
            busy: are requests in flight? If not, the peak decays, so that a slow endpoint is tried again. If so, it
                does
                not: an endpoint that hangs must not look faster with every second.
        """
        return self._peak if self._peak is None or busy else self._peak * self._kept(self._peak_at)

    @property
    def throughput(self) -> float | None:
        """Tokens per second of time that requests were in flight, failed ones included. `None`: no answer yet."""
        return self._tokens / self._seconds if self._tokens and self._seconds else None

    @property
    def error_share(self) -> float:
        """Share of the attempts that failed, as if one more had gone well; it decays when no more attempts fail."""
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
        # After a day without attempts the exponential would be zero, which nothing can be divided by.
        return max(math.exp((since - self._clock()) / self._decay), _LEAST_KEPT)


_LEAST_KEPT = 1e-9
