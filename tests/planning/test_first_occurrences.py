"""Finding the first row of each key, however the input is cut into parts."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from batch.planning.first_occurrences import NO_ROW, FirstOccurrences, keys_with_model


@given(st.lists(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1)), max_size=30), max_size=8))
def test_every_later_row_finds_the_first_with_its_key(parts: list[list[tuple[int, int]]]) -> None:
    """However the input is cut, a row gets the first earlier row with its key if their checks agree, else none."""
    seen = FirstOccurrences()
    first: dict[int, tuple[int, int]] = {}
    row = 0
    for part in parts:
        keys = np.array([k for k, _ in part], np.uint64)
        checks = np.array([c for _, c in part], np.uint64)
        told = seen.first(keys, checks, np.arange(row, row + len(part), dtype=np.int64))
        for (key, check), earlier in zip(part, told, strict=True):
            known = first.setdefault(key, (check, row))
            assert earlier == (known[1] if known[1] != row and known[0] == check else NO_ROW)
            row += 1


def test_the_same_request_to_two_models_is_two_requests() -> None:
    """Equal keys stay equal for the same model and become different for different models."""
    keys = np.array([7, 7, 7], np.uint64)
    mixed = keys_with_model(keys, np.array([0, 1, 0], np.int16))
    assert mixed[0] == mixed[2] != mixed[1]
