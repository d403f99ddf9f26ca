"""Latencies, kept so that shards can be merged and percentiles stay right within half a percent."""

from collections.abc import Mapping
from math import ceil, exp, log

# Each bucket reaches from one bound to `_GROWTH` times it; its middle is then at most this far from any value in it.
RELATIVE_ERROR = 0.005
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = log(_GROWTH)
_MIDDLE = 2 / (1 + _GROWTH)

# Nothing that answers over a network is faster; it also keeps zero out of the logarithm.
SHORTEST_SECONDS = 1e-6


class LatencyHistogram:
    """Counts of latencies in buckets that grow by one percent: some 1,200 from a millisecond to a minute at most."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = dict(counts or {})
        """Latencies per bucket."""

    def add(self, seconds: float) -> None:
        """One more latency; below a microsecond it counts as one."""
        bucket = ceil(log(max(seconds, SHORTEST_SECONDS)) / _LOG_GROWTH)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, other: "LatencyHistogram") -> None:
        """Add all of another's."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """Seconds that a share `q` of the latencies do not exceed, within 0.5 %; `None` where there are none."""
        rank = ceil(q * sum(self.counts.values()))
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                return exp(bucket * _LOG_GROWTH) * _MIDDLE
        return None
