"""A histogram of latencies that can be merged over shards, with percentiles that are exact within half a percent."""

from collections.abc import Mapping
from math import ceil, exp, log

# Each bucket reaches from one bound to `_GROWTH` times that bound, so no value in it is farther than this from its
# middle, relative to the value.
RELATIVE_ERROR = 0.005
_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = log(_GROWTH)
_MIDDLE = 2 / (1 + _GROWTH)

# No answer over a network is faster. The bound also keeps zero out of the logarithm.
SHORTEST_SECONDS = 1e-6


class LatencyHistogram:
    """Counts latencies in buckets, each one percent wider than the one before: at most 1,200 from 1 ms to 1 min."""

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts = dict(counts or {})
        """How many latencies are in each bucket, by its number."""

    def add(self, seconds: float) -> None:
        """Add one latency. One below a microsecond counts as a microsecond."""
        bucket = ceil(log(max(seconds, SHORTEST_SECONDS)) / _LOG_GROWTH)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def merge(self, other: "LatencyHistogram") -> None:
        """Add all latencies of another histogram."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def quantile(self, q: float) -> float | None:
        """Seconds that a share `q` of the latencies does not exceed, within 0.5 %; `None` if there are no latencies."""
        rank = ceil(q * sum(self.counts.values()))
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                return exp(bucket * _LOG_GROWTH) * _MIDDLE
        return None
