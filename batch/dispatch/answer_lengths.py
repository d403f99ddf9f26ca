"""Expects how long a row's answer will be, by the answers to rows of the same kind."""

import math

from batch.dispatch.request import Completion, LimitCost, Request, RowKind

# Kinds differ by a factor of 1.41 in the prompt's length; finer kinds would hold too few rows.
_STEPS_PER_DOUBLING = 2
# A mean covers about this many answers.
_MEMORY = 200
# Once it does, one answer of eight is enough to keep it up to date.
_SAMPLED = 7
# Until a kind of row has this many answers, `max_tokens` is expected.
_ENOUGH = 8
_BYTES_PER_TOKEN = 4
# An endpoint reads a prompt token in about a hundredth of the time in which it writes an answer token.
_PROMPT_TOKEN = 0.01


def kind_of(request: Request) -> RowKind:
    """The kind of a row; computed once."""
    if request.kind is None:
        request.kind = _kind(request)
    return request.kind


def _kind(request: Request) -> RowKind:
    size = request.prompt_tokens or len(request.body) // _BYTES_PER_TOKEN
    return request.max_tokens or 0, round(_STEPS_PER_DOUBLING * math.log2(max(1, size)))


class ExpectedTokens:
    """Mean answer tokens by kind of row: an expectation, never a bound."""

    def __init__(self) -> None:
        self._means: dict[RowKind, list[float]] = {}

    def cost(self, request: Request) -> LimitCost:
        """What the row's next attempt takes from the limits."""
        return LimitCost(1, request.prompt_tokens, request.max_tokens or 0, round(self._mean(kind_of(request))))

    def cost_of(self, kind: RowKind) -> LimitCost:
        """What an attempt at a typical row of this kind takes from the limits."""
        most, step = kind
        return LimitCost(1, round(2 ** (step / _STEPS_PER_DOUBLING)), most, round(self._mean(kind)))

    def work(self, request: Request) -> float:
        """How long the row is expected to take, compared with other rows: its answer tokens, and a little for its
        prompt.
        """
        kind = kind_of(request)
        return self._mean(kind) + _PROMPT_TOKEN * self.cost_of(kind).input

    def learn(self, request: Request, completion: Completion) -> None:
        """Update the mean by an answer to this row."""
        tokens = completion.completion_tokens
        if tokens is None:
            return
        known = self._means.setdefault(kind_of(request), [0.0, 0.0])
        if known[0] == _MEMORY and request.row & _SAMPLED:
            return
        known[0] = min(known[0] + 1, _MEMORY)
        known[1] += (tokens - known[1]) / known[0]

    def _mean(self, kind: RowKind) -> float:
        known = self._means.get(kind)
        return float(kind[0]) if known is None or known[0] < _ENOUGH else known[1]
