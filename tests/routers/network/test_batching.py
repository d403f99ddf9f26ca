"""Batches within a budget of tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batch.arrays import Indices
from batch.routers.network.batching import equal_batches, run_in_batches, token_batches

LENGTHS = st.lists(st.integers(0, 300), max_size=60)


@given(LENGTHS, st.integers(1, 2000))
def test_every_prompt_once_within_the_budget(lengths: list[int], budget: int) -> None:
    """Batches hold each prompt once, longest first, and none costs more than the budget unless it is one prompt."""
    batches = token_batches(lengths, budget)
    taken = [int(i) for batch in batches for i in batch]
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[i] for i in taken] == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, st.integers(1, 2000))
def test_batches_of_equal_length(lengths: list[int], budget: int) -> None:
    """Batches hold each prompt once, longest first, of one length and within the budget, and are as few as possible."""
    batches = equal_batches(lengths, budget)
    taken = [int(i) for batch in batches for i in batch]
    assert sorted(taken) == list(range(len(lengths)))
    assert [lengths[i] for i in taken] == sorted(lengths, reverse=True)
    needed = 0
    for length in set(lengths):
        needed += -(-lengths.count(length) // max(budget // max(length, 1), 1))
    assert len(batches) == needed
    for batch in batches:
        assert len({lengths[i] for i in batch}) == 1
        assert len(batch) == 1 or len(batch) * lengths[batch[0]] <= budget


class FullError(Exception):
    """Stands for a GPU that is out of memory."""


class SmallMemory:
    """Runs batches of at most `tokens` tokens, padding included."""

    def __init__(self, lengths: list[int], tokens: int) -> None:
        self._lengths = np.array(lengths, dtype=np.intp)
        self._tokens = tokens
        self.refused = 0

    def run(self, batch: Indices) -> NDArray[np.float32]:
        if len(batch) * int(self._lengths[batch].max()) > self._tokens:
            self.refused += 1
            raise FullError
        return self._lengths[batch, None].astype(np.float32)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(50, 400))
def test_out_of_memory_halves_the_budget(lengths: list[int], tokens: int) -> None:
    """When memory runs out, the rest runs in smaller batches, no prompt is lost, and the working budget is returned."""
    memory = SmallMemory(lengths, tokens)
    done, budget = run_in_batches(lengths, 4096, memory.run, FullError)
    results = {int(i): float(row[0]) for batch, rows in done for i, row in zip(batch, rows, strict=True)}
    assert results == {i: float(length) for i, length in enumerate(lengths)}
    assert budget == 4096 // 2**memory.refused


def test_one_prompt_too_many() -> None:
    """If not even one prompt fits, the error is raised: no smaller batch could help."""
    with pytest.raises(FullError):
        run_in_batches([10, 60], 4096, SmallMemory([10, 60], 50).run, FullError)
