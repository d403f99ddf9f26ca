"""How long a row's answer will be, learned from the answers of rows like it."""

import math

from batch.dispatch.request import Completion, LimitCost, Request, RowKind

# Prompts a factor of 1.41 apart: finer kinds hold too few rows to be counted.
_STEPS_PER_DOUBLING = 2
# Averages follow about so many answers.
_MEMORY = 200
# Once it has them, one of eight is enough to follow.
_SAMPLED = 7
# Until a kind of row has given so many answers, its `max_tokens` stands.
_ENOUGH = 8
_BYTES_PER_TOKEN = 4
# Reading a token takes an endpoint about a hundredth of the time that writing one does.
_PROMPT_TOKEN = 0.01


def kind_of(request: Request) -> RowKind:
    """The kind of a row; worked out once."""
    if request.kind is None:
        request.kind = _kind(request)
    return request.kind


def _kind(request: Request) -> RowKind:
    size = request.prompt_tokens or len(request.body) // _BYTES_PER_TOKEN
    return request.max_tokens or 0, round(_STEPS_PER_DOUBLING * math.log2(max(1, size)))


class ExpectedTokens:
    """A mean per kind of row; what it says is an expectation, never a bound."""

    def __init__(self) -> None:
        self._means: dict[RowKind, list[float]] = {}

    def cost(self, request: Request) -> LimitCost:
        """What the row's next attempt is to take from the limits."""
        return LimitCost(1, request.prompt_tokens, request.max_tokens or 0, round(self._mean(kind_of(request))))

    def cost_of(self, kind: RowKind) -> LimitCost:
        """The same, of a typical row of this kind."""
        most, step = kind
        return LimitCost(1, round(2 ** (step / _STEPS_PER_DOUBLING)), most, round(self._mean(kind)))

    def work(self, request: Request) -> float:
        """How long the row is expected to take, compared with others of its lane: answer tokens, then the prompt's."""
        kind = kind_of(request)
        return self._mean(kind) + _PROMPT_TOKEN * self.cost_of(kind).input

    def learn(self, request: Request, completion: Completion) -> None:
        """An answer came."""
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
