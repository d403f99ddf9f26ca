"""OpenAI, and the servers that state their limits as it does."""

from batch.dispatch.providers.base import LimitHeaders, Provider, larger_of_both
from batch.errors import BadRequest, RateLimited, Refused
from batch.limits import Measure


def _headers(measure: Measure, what: str) -> LimitHeaders:
    return LimitHeaders(
        measure, f"x-ratelimit-limit-{what}", f"x-ratelimit-remaining-{what}", f"x-ratelimit-reset-{what}"
    )


LIMIT_SIGNS = ("x-ratelimit-remaining-requests", "x-ratelimit-remaining-tokens")
LIMIT_HEADERS = (
    _headers("requests", "requests"),
    _headers("requests", "project-requests"),
    _headers("requests", "req-minute"),  # Mistral
    _headers("tokens", "tokens"),
    _headers("tokens", "project-tokens"),
    _headers("tokens", "tokens_usage_based"),
    _headers("tokens", "tokens-minute"),  # Mistral, Cerebras
    _headers("input", "input-tokens"),
    _headers("output", "output-tokens"),
)

OPENAI = Provider(
    # "The maximum of max_tokens and the estimated number of tokens", from OpenAI's guide on rate limits.
    count_tokens=larger_of_both,
    refunds=False,
    limit_signs=LIMIT_SIGNS,
    even_limits=LIMIT_HEADERS,
    error_codes={
        "insufficient_quota": Refused,
        "billing_hard_limit_reached": Refused,
        "invalid_api_key": Refused,
        "account_deactivated": Refused,
        "unsupported_country_region_territory": Refused,
        "model_not_found": Refused,
        "content_policy_violation": BadRequest,
        "invalid_prompt": BadRequest,
        "context_length_exceeded": BadRequest,
        "string_above_max_length": BadRequest,
        "rate_limit_exceeded": RateLimited,
        "slow_down": RateLimited,
    },
)
