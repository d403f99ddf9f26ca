"""Reads from an answer's `usage` how many tokens it was billed for."""

from typing import Any

from schemas.openai_batch import EMBEDDINGS_URL, RESPONSES_URL

# No server really means more tokens, and a larger number would not fit the results' columns.
_MOST_TOKENS = 10**9

Tokens = tuple[int | None, int | None]
"""The number of tokens of the prompt and of the answer; `None` for one that `usage` does not state."""


def tokens(usage: Any, url: str) -> Tokens:
    """Return the tokens that `usage` states for an answer from `url`, whichever way the provider counts.

    If `total_tokens` is more than the sum, the rest is counted as the answer's: xAI and Gemini leave reasoning out of
    `completion_tokens`, and bill it. If exactly the cached tokens are missing, they are counted as the prompt's, as
    Anthropic counts. Embeddings have no answer, so its count is 0 or what `usage` states.
    """
    if type(usage) is not dict:
        return None, None
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    # A short cut for nearly all usages, in a third of the time: the total is the sum, and there is no reasoning.
    if (
        type(prompt) is int is type(answer)
        and usage.get("total_tokens") == prompt + answer
        and 0 <= prompt <= _MOST_TOKENS
        and 0 <= answer <= _MOST_TOKENS
        and not _has_reasoning(usage)
    ):
        return prompt, answer
    prompt, answer = _told(usage, url)
    total = _count(usage.get("total_tokens"))
    if url == EMBEDDINGS_URL:
        prompt = max((count for count in (prompt, total) if count is not None), default=None)
        return prompt, None if prompt is None else answer or 0
    if total is not None:
        if answer is None and prompt is not None:
            answer = max(0, total - prompt)
        elif prompt is None and answer is not None:
            prompt = max(0, total - answer)
    if prompt is None or answer is None:
        return prompt, answer
    missing = 0 if total is None else total - prompt - answer
    if missing > 0:
        return (prompt + missing, answer) if missing in _cached(usage) else (prompt, answer + missing)
    reasoning = _reasoning(usage)
    # Reasoning is a part of the answer. If it is more than the answer's count, the server left it out of that count,
    # and of the total, if there is one.
    return prompt, answer + reasoning if reasoning > answer else answer


def _has_reasoning(usage: dict[str, Any]) -> bool:
    """Whether `usage` may state reasoning tokens."""
    details = usage.get("completion_tokens_details")
    return bool(
        "reasoning_tokens" in usage or (details and (type(details) is not dict or details.get("reasoning_tokens")))
    )


def _told(usage: dict[str, Any], url: str) -> Tokens:
    """Return the prompt's and the answer's tokens as `usage` states them, under OpenAI's or Anthropic's names."""
    if url != RESPONSES_URL:
        prompt, answer = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
        if prompt is not None or answer is not None:
            return prompt, answer
    prompt, answer = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    if prompt is not None and url != RESPONSES_URL:
        # In Anthropic's own format, `input_tokens` excludes the tokens read from the cache and those written to it.
        prompt += sum(_count(usage.get(name)) or 0 for name in _ANTHROPIC_CACHE)
    return prompt, answer


_ANTHROPIC_CACHE = ("cache_read_input_tokens", "cache_creation_input_tokens")


def _cached(usage: dict[str, Any]) -> set[int]:
    """Return the counts of cached tokens by which the prompt's count may be too low."""
    read, written = (_count(usage.get(name)) or 0 for name in _ANTHROPIC_CACHE)
    details = usage.get("prompt_tokens_details")
    cached = (_count(details.get("cached_tokens")) or 0) if isinstance(details, dict) else 0
    return {read, written, cached, read + written, cached + written} - {0}


def _reasoning(usage: dict[str, Any]) -> int:
    """Return the reasoning tokens that `usage` states; 0 if it states none."""
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name)
        if isinstance(details, dict):
            return _count(details.get("reasoning_tokens")) or 0
    return _count(usage.get("reasoning_tokens")) or 0


def _count(value: Any) -> int | None:
    """Return the value if it is a count of tokens, a whole number from 0 to `_MOST_TOKENS`, else `None`."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None
