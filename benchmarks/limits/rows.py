"""The rows of a batch. Clients and servers compute them from row numbers, so all clients get the same answers."""

import re
import statistics
from random import Random

MEDIAN_ANSWER_TOKENS = 60
_ANSWER_SIGMA = 0.8
# The means are taken over these rows; no run has more.
_SAMPLED_ROWS = range(4000)
_ROW_NUMBER = re.compile(r"row (\d+)")


def prompt(row: int) -> str:
    """A prompt of 20 to 60 words. The servers here count a word as a token."""
    return f"row {row} " + " ".join(["word"] * (18 + row * 7919 % 41))


def prompt_tokens(text: str) -> int:
    """How many tokens the servers count for a prompt."""
    return len(text.split())


def row_of(text: str) -> int:
    """The number of the row that a prompt belongs to; -1 if the prompt is not one of ours."""
    found = _ROW_NUMBER.match(text)
    return int(found[1]) if found else -1


def answer_tokens(row: int, max_tokens: int) -> int:
    """The length of a row's answer in tokens: lognormal, from 1 to `max_tokens`."""
    return max(1, min(max_tokens, round(MEDIAN_ANSWER_TOKENS * Random(row).lognormvariate(0, _ANSWER_SIGMA))))


def mean_prompt_tokens() -> float:
    """The mean length of a row's prompt, in tokens."""
    return statistics.fmean(prompt_tokens(prompt(row)) for row in _SAMPLED_ROWS)


def mean_answer_tokens(max_tokens: int) -> float:
    """The mean length of a row's answer, in tokens."""
    return statistics.fmean(answer_tokens(row, max_tokens) for row in _SAMPLED_ROWS)
