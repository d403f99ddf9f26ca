"""Any other server: whichever way it states its limits, they are read."""

from batch.dispatch.providers import anthropic, openai
from batch.dispatch.providers.base import LimitHeaders, Provider, prompt_and_answer

# The IETF's drafts up to the sixth, and what came before them: GitHub, OpenRouter, most gateways and middlewares.
_WINDOWS = (
    LimitHeaders("requests", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "ratelimit-policy"),
    LimitHeaders("requests", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy"),
)

GENERIC = Provider(
    count_tokens=prompt_and_answer,
    refunds=True,
    limit_signs=(
        *openai.LIMIT_SIGNS,
        "x-ratelimit-remaining-tokens-minute",
        anthropic.LIMIT_SIGNS[0],
        *(headers.remaining for headers in _WINDOWS),
    ),
    even_limits=openai.LIMIT_HEADERS + anthropic.LIMIT_HEADERS,
    windowed_limits=_WINDOWS,
    # `transports/parsing/error_codes.py` has the codes of providers without a record.
    error_codes={},
)
