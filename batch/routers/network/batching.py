"""Batches by token budget: prompts of like length together, so that little is spent on padding."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from batch.arrays import Indices

Result = TypeVar("Result")

_log = logging.getLogger("batchrouter.routers.network")


def token_batches(lengths: ArrayLike, budget: int) -> list[Indices]:
    """Cut prompts of these token counts into batches of at most `budget` tokens, padding included.

    Returns indices into `lengths`, each exactly once, longest prompts first: a batch costs its count times
    its longest, and memory that does not suffice shows at once. A prompt longer than the budget goes alone.
    """
    counts = np.asarray(lengths, dtype=np.intp)
    order = np.argsort(-counts, kind="stable")
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        size = max(budget // max(int(counts[order[start]]), 1), 1)
        batches.append(order[start : start + size])
        start += size
    return batches


def equal_batches(lengths: ArrayLike, budget: int) -> list[Indices]:
    """As `token_batches`, of prompts with the same number of tokens only: more batches, and no padding in any."""
    counts = np.asarray(lengths, dtype=np.intp)
    order = np.argsort(-counts, kind="stable")
    alike = np.split(order, np.flatnonzero(np.diff(counts[order])) + 1) if len(order) else []
    return [same[cut] for same in alike for cut in token_batches(counts[same], budget)]


def run_in_batches(
    lengths: ArrayLike,
    budget: int,
    run: Callable[[Indices], Result],
    out_of_memory: type[Exception],
) -> tuple[Sequence[tuple[Indices, Result]], int]:
    """Call `run` with each batch; if it raises `out_of_memory`, halve the budget, cut the rest anew, and continue.

    Returns the batches with their results, and the budget that worked. The error passes through if even a single
    prompt is too much.
    """
    counts = np.asarray(lengths, dtype=np.intp)
    done: list[tuple[Indices, Result]] = []
    waiting = token_batches(counts, budget)[::-1]
    while waiting:
        batch = waiting.pop()
        try:
            done.append((batch, run(batch)))
        except out_of_memory:
            if len(batch) == 1:
                raise
            budget = max(budget // 2, 1)
            _log.warning(
                "out of memory with a batch of %d prompts: batches now have at most %d tokens", len(batch), budget
            )
            rest = np.concatenate([batch, *waiting[::-1]])
            waiting = [rest[cut] for cut in token_batches(counts[rest], budget)][::-1]
    return done, budget
