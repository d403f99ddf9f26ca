"""Exact search of the nearest vectors, and weights that rounding does not change."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.routers.estimators import cosine_search as similarity
from batch.routers.estimators.cosine_search import directions, nearest, tapered


def drawn(count: int, dimension: int, seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(1, 40), st.integers(1, 50), st.integers(0, 99))
def test_the_nearest_are_those_of_a_whole_sort(queries: int, stored: int, count: int, seed: int) -> None:
    """Cut into any blocks, the search finds the largest products in falling order, with the places they belong to."""
    asked, there = drawn(queries, 3, seed), drawn(stored, 3, seed + 1)
    with pytest.MonkeyPatch.context() as small:
        small.setattr(similarity, "_QUERIES", 4)
        small.setattr(similarity, "_STORED", 7)
        found = list(nearest(asked, there, count))
    assert [row for rows, _, _ in found for row in range(queries)[rows]] == list(range(queries))
    products = asked @ there.T
    for rows, best, places in found:
        np.testing.assert_allclose(best, np.take_along_axis(products[rows], places, axis=1), atol=1e-5)
        np.testing.assert_allclose(best, -np.sort(-products[rows], axis=1)[:, :count], atol=1e-5)


def test_memory_does_not_grow_with_what_is_stored_or_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times the prompts and four times the vectors need no more working memory."""
    monkeypatch.setattr(similarity, "_QUERIES", 32)
    monkeypatch.setattr(similarity, "_STORED", 1024)
    peaks = []
    for times in (1, 4):
        asked, there = drawn(100 * times, 8, 0), drawn(4000 * times, 8, 1).astype(np.float16)
        tracemalloc.start()
        for _ in nearest(asked, there, 17):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_directions_have_length_one_about_the_mean() -> None:
    """The mean of all vectors is subtracted; a vector equal to the mean stays zero."""
    vectors = np.array([[5.0, 9.0], [5.0, 7.0], [5.0, 8.0]], np.float32)
    np.testing.assert_array_equal(directions(vectors, vectors.mean(axis=0)), [[0, 1], [0, -1], [0, 0]])


def test_weights_fall_to_zero() -> None:
    """Weights fall from at most 1 to 0 at the first neighbour left out; if none is left out, nothing is subtracted."""
    cosines = np.array([[0.9, 0.7, 0.2, 0.2], [0.5, 0.5, 0.5, -1.0]], np.float32)
    weights = tapered(cosines, 3, 0.5)
    assert weights.shape == (2, 3)
    assert (np.diff(weights, axis=1) <= 0).all()
    assert (weights <= 1).all()
    assert weights[0, 2] == 0
    np.testing.assert_allclose(tapered(cosines, 4, 0.5)[0], np.exp((cosines[0] - 0.9) / 0.5), rtol=1e-6)


def test_a_swap_of_candidates_changes_nothing() -> None:
    """If rounding decides which of two neighbours takes the last place, both have nearly the same weight, zero."""
    before = tapered(np.array([[0.9, 0.5 + 1e-7, 0.5]], np.float32), 2, 0.05)
    after = tapered(np.array([[0.9, 0.5, 0.5]], np.float32), 2, 0.05)
    np.testing.assert_allclose(before, after, rtol=0, atol=1e-5)
    assert after[0, 1] == 0
