"""The rows of a batch. Both sides make them up from the row's number, so that every client gets the same answers."""

import re
import statistics
from random import Random

TYPICAL_ANSWER = 60
"""Median length of an answer, in tokens."""
_SPREAD = 0.8
# More rows than any run has.
_SAMPLE = range(4000)
_MARK = re.compile(r"row (\d+)")


def prompt(row: int) -> str:
    """A prompt of 20 to 60 words. The servers here count a word as a token."""
    return f"row {row} " + " ".join(["word"] * (18 + row * 7919 % 41))


def prompt_tokens(text: str) -> int:
    """What the servers count for a prompt."""
    return len(text.split())


def row_of(text: str) -> int:
    """The row that a prompt belongs to; -1: none."""
    found = _MARK.match(text)
    return int(found[1]) if found else -1


def answer_tokens(row: int, max_tokens: int) -> int:
    """Length of a row's answer: lognormal, cut off at `max_tokens`."""
    return max(1, min(max_tokens, round(TYPICAL_ANSWER * Random(row).lognormvariate(0, _SPREAD))))


def mean_prompt_tokens() -> float:
    """Of a row."""
    return statistics.fmean(prompt_tokens(prompt(row)) for row in _SAMPLE)


def mean_answer_tokens(max_tokens: int) -> float:
    """Of a row."""
    return statistics.fmean(answer_tokens(row, max_tokens) for row in _SAMPLE)
