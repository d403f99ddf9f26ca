"""Finds the first row that had a key, in an input that comes in parts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# 2**64 divided by the golden ratio: multiplying by it spreads small numbers over all bits.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

NO_ROW = -1
"""Stands for the earlier row where there is none."""


class FirstOccurrences:
    """Remembers the first row of every key. Parts come in row order. Takes 24 bytes and log(n) time per key.

    Keys are 64-bit hashes. Two rows count as equal only if their `check` is equal too: with 64 more bits of the same
    hash, two unequal rows will practically never look equal. If only their keys are equal, the later row counts as new.
    """

    def __init__(self) -> None:
        # Sorted runs, each at least twice as long as the next, so that a key is merged once per doubling.
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]] = []

    def first(self, keys: NDArray[np.uint64], checks: NDArray[np.uint64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each row, the earlier row with the same key and check, or NO_ROW. Remembers the new keys."""
        if not len(keys):
            return np.empty(0, np.int64)
        unique, index, inverse = np.unique(keys, return_index=True, return_inverse=True)
        check, row = checks[index], rows[index]
        for run_keys, run_checks, run_rows in self._runs:
            at = np.minimum(np.searchsorted(run_keys, unique), len(run_keys) - 1)
            known = run_keys[at] == unique
            check[known], row[known] = run_checks[at[known]], run_rows[at[known]]
        earlier = np.where(check[inverse] == checks, row[inverse], NO_ROW)
        earlier[earlier == rows] = NO_ROW
        new = row == rows[index]
        self._add(unique[new], check[new], row[new])
        return earlier

    def find(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """For each key its first row, or NO_ROW. Remembers nothing."""
        found = np.full(len(keys), NO_ROW, np.int64)
        for run_keys, _, run_rows in self._runs:
            at = np.minimum(np.searchsorted(run_keys, keys), len(run_keys) - 1)
            known = run_keys[at] == keys
            found[known] = run_rows[at[known]]
        return found

    def _add(self, *new: NDArray[Any]) -> None:
        columns = list(new)
        while len(columns[0]) and self._runs and len(self._runs[-1][0]) < 2 * len(columns[0]):
            columns = _merged(list(self._runs.pop()), columns)
        if len(columns[0]):
            keys, checks, rows = columns
            self._runs.append((keys, checks, rows))


def _merged(left: list[NDArray[Any]], right: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """Merge two sorted runs. Empties both lists column by column, so that at most twice their memory is in use."""
    order = np.argsort(np.concatenate((left[0], right[0])), kind="stable")
    return [np.concatenate((left.pop(0), right.pop(0)))[order] for _ in range(len(left))]


def keys_with_model(keys: NDArray[np.uint64], model: NDArray[np.int16]) -> NDArray[np.uint64]:
    """Mix the model into each key, so that equal requests to different models have different keys."""
    mixed: NDArray[np.uint64] = keys ^ ((model.astype(np.uint64) + np.uint64(1)) * _SPREAD)
    return mixed
