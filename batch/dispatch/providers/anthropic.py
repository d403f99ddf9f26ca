"""Anthropic."""

from batch.dispatch.providers.base import LimitHeaders, Provider, prompt_and_answer
from batch.errors import BadRequest, RateLimited
from batch.limits import Measure


def _headers(measure: Measure, what: str) -> LimitHeaders:
    stem = f"anthropic-ratelimit-{what}"
    return LimitHeaders(measure, f"{stem}-limit", f"{stem}-remaining", f"{stem}-reset")


LIMIT_SIGNS = ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-tokens-remaining")
LIMIT_HEADERS = (
    _headers("requests", "requests"),
    _headers("tokens", "tokens"),
    _headers("input", "input-tokens"),
    _headers("output", "output-tokens"),
)

ANTHROPIC = Provider(
    # Input and output are estimated on arrival and corrected at the end.
    count_tokens=prompt_and_answer,
    refunds=True,
    limit_signs=LIMIT_SIGNS,
    even_limits=LIMIT_HEADERS,
    error_codes={
        "request_too_large": BadRequest,
        "rate_limit_error": RateLimited,
        "overloaded_error": RateLimited,
    },
)
