"""The tokens that an attempt without an answer may be billed for, row by row."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from batch.costs.bounds import most_tokens
from batch.dispatch.request import Request
from batch.errors import DispatchError
from batch.outcomes import Billed


def billed_tokens(rows: Sequence[Request], error: DispatchError) -> Sequence[Billed | None]:
    """For each row of a request that ended in `error`: the tokens that it may be billed for; `None`: none.

    Usage that the server stated is divided in proportion to the rows' own token counts, and adds up to the whole
    exactly. If it stated none, each row may be billed for its bound.
    """
    if not error.billed:
        return [None] * len(rows)
    prompt_tokens, completion_tokens = error.usage or (None, None)
    if prompt_tokens is None or completion_tokens is None:
        return [_most(row) for row in rows]
    if len(rows) == 1:
        return [Billed(prompt_tokens, completion_tokens, exact=True)]
    weights = [row.prompt_tokens for row in rows]
    return [
        Billed(prompt, completion, exact=True)
        for prompt, completion in zip(
            share_out(prompt_tokens, weights), share_out(completion_tokens, weights), strict=True
        )
    ]


def share_out(value: Any, weights: Sequence[int]) -> Sequence[Any]:
    """Divide `value` in proportion to `weights`: whole numbers add up exactly, also within objects; others are
    repeated.
    """
    if isinstance(value, dict):
        columns = [share_out(inner, weights) for inner in value.values()]
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(weights)
    if isinstance(value, int) and not isinstance(value, bool):
        parts = weights if sum(weights) > 0 else [1] * len(weights)
        total = sum(parts)
        bounds = [value * upto // total for upto in accumulate(parts, initial=0)]
        return [upper - lower for lower, upper in pairwise(bounds)]
    return [value] * len(weights)


def _most(row: Request) -> Billed:
    most = most_tokens(row.url, row.body, row.max_tokens)
    return Billed(None, None, exact=False) if most is None else Billed(*most, exact=False)
