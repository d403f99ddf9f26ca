from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from batch.costs.latency import RELATIVE_ERROR, LatencyHistogram

LATENCIES = st.lists(st.floats(min_value=1e-6, max_value=1e5), min_size=1, max_size=200)


def filled(latencies: list[float]) -> LatencyHistogram:
    histogram = LatencyHistogram()
    for seconds in latencies:
        histogram.add(seconds)
    return histogram


@given(LATENCIES, st.sampled_from([0.01, 0.5, 0.95, 1.0]))
def test_quantiles_are_right_within_half_a_percent(latencies: list[float], q: float) -> None:
    """A quantile is the latency of that rank, at most half a percent off."""
    exact = sorted(latencies)[ceil(q * len(latencies)) - 1]
    found = filled(latencies).quantile(q)
    assert found is not None
    assert abs(found - exact) <= exact * RELATIVE_ERROR * 1.000001


@given(LATENCIES, LATENCIES)
def test_merging_is_counting_together(ours: list[float], theirs: list[float]) -> None:
    """A merged histogram is the histogram of all its latencies."""
    merged = filled(ours)
    merged.merge(filled(theirs))
    assert merged.counts == filled(ours + theirs).counts


def test_nothing_has_no_quantile() -> None:
    """Without latencies there is no median; a latency of zero counts as a microsecond."""
    assert LatencyHistogram().quantile(0.5) is None
    instant = filled([0.0]).quantile(0.5)
    assert instant is not None
    assert 0.9e-6 < instant < 1.1e-6


def test_it_stays_small() -> None:
    """A hundred thousand latencies from a millisecond to a minute need some 1,100 buckets."""
    assert len(filled([0.001 * 1.00011**i for i in range(100_000)]).counts) < 1_200
