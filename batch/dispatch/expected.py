"""How long a row's answer will be, learned from the answers of rows like it."""

from batch.dispatch.request import Completion, Cost, Request

# Rows alike: the same `max_tokens`, and bodies within a factor of two. Averages follow about so many answers.
_MEMORY = 200
# Until a kind of row has given so many answers, its `max_tokens` stands.
_ENOUGH = 8


class ExpectedTokens:
    """A mean per kind of row; what it says is an expectation, never a bound."""

    def __init__(self) -> None:
        self._means: dict[tuple[int | None, int], list[float]] = {}

    def cost(self, request: Request) -> Cost:
        """What the row's next attempt is to take from the limits."""
        output = request.max_tokens or 0
        return Cost(1, request.prompt_tokens, output, int(self._mean(request, output)))

    def work(self, request: Request) -> float:
        """How long the row is expected to take, compared with others of its lane: answer tokens, then the prompt's."""
        size = request.prompt_tokens or len(request.body) / _BYTES_PER_TOKEN
        return self._mean(request, float(request.max_tokens or 0)) + size * _PROMPT_TOKEN

    def learn(self, request: Request, completion: Completion) -> None:
        """An answer came."""
        tokens = completion.completion_tokens
        if tokens is None:
            return
        known = self._means.setdefault(_kind(request), [0.0, 0.0])
        known[0] = min(known[0] + 1, _MEMORY)
        known[1] += (tokens - known[1]) / known[0]

    def _mean(self, request: Request, otherwise: float) -> float:
        known = self._means.get(_kind(request))
        return otherwise if known is None or known[0] < _ENOUGH else known[1]


_BYTES_PER_TOKEN = 4
# Reading a token takes an endpoint about a hundredth of the time that writing one does.
_PROMPT_TOKEN = 0.01


def _kind(request: Request) -> tuple[int | None, int]:
    return request.max_tokens, len(request.body).bit_length()
