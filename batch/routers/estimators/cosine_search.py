"""Finds the stored vectors that are most similar to a prompt's: exactly, by cosine, in bounded memory."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batch.arrays import Float32s, Indices

# Block sizes: 256 x 8,192 cosines and their order take 40 MB, for any number of stored vectors and queries.
_QUERIES = 256
_STORED = 8192


def directions(vectors: Float32s, mean: Float32s) -> Float32s:
    """Subtract `mean` and scale to length 1, so that products are cosines; a vector that equals `mean` becomes zero.

    Vectors of an encoder's early layers share a large common part. If it stays, all cosines are near 1: APGR on GSM8K
    is .626 with the common part left in and .643 with it subtracted (layer 2; MMLU .664 and .656).
    """
    placed = vectors - mean
    lengths = np.linalg.norm(placed, axis=1, keepdims=True)
    lengths[lengths == 0.0] = 1.0
    at_length_one: Float32s = placed / lengths
    return at_length_one


def nearest(queries: Float32s, stored: NDArray[Any], count: int) -> Iterator[tuple[slice, Float32s, Indices]]:
    """Find the `count` stored vectors with the largest products, exactly, for a block of queries at a time.

    `stored` may have any precision; products are float32. Yields, for each block: which queries it covers; their
    products, largest first; and the row numbers in `stored`. Both arrays have the shape (queries of the block,
    `min(count, len(stored))`).
    """
    for start in range(0, len(queries), _QUERIES):
        asked = queries[start : start + _QUERIES]
        best, places = np.empty((len(asked), 0), np.float32), np.empty((len(asked), 0), np.intp)
        for first in range(0, len(stored), _STORED):
            products = asked @ stored[first : first + _STORED].astype(np.float32, copy=False).T
            here = np.broadcast_to(np.arange(first, first + products.shape[1]), products.shape)
            best, places = _largest(np.hstack([best, products]), np.hstack([places, here]), count)
        order = np.argsort(-best, axis=1, kind="stable")
        found = slice(start, start + len(asked))
        yield found, np.take_along_axis(best, order, axis=1), np.take_along_axis(places, order, axis=1)


def tapered(similarity: Float32s, count: int, temperature: float) -> Float32s:
    """Return weights of the first `count` columns, shape (rows, `min(count, columns)`).

    The weights are those of a softmax at this temperature, scaled to at most 1, minus the weight of the first column
    that is left out. So the last weight falls to 0 as that column comes near, and a score changes continuously when two
    candidates swap places: neither rounding nor the other prompts of a batch decide which of them counts.

    Args:
        similarity: cosines, falling along each row.
    """
    heights: Float32s = np.exp((similarity - similarity[:, :1]) / np.float32(temperature))
    return heights[:, :count] - heights[:, count : count + 1] if heights.shape[1] > count else heights


def _largest(values: Float32s, places: Indices, count: int) -> tuple[Float32s, Indices]:
    if values.shape[1] <= count:
        return values, places
    chosen = np.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]
    return np.take_along_axis(values, chosen, axis=1), np.take_along_axis(places, chosen, axis=1)
