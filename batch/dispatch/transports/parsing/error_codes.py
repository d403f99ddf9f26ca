"""Which codes and statuses stand for which of our errors."""

from batch.dispatch.providers.registry import PROVIDERS
from batch.errors import BadRequest, DispatchError, RateLimited, Refused, ServerError

# Providers name the cause of an error in `error.code` or near it. Such a code says more than the status it comes with,
# which differs by provider: a spent budget is reported with 400, 402, 403 or 429, and overload with 429, 503 or 529.
# The codes here are those of providers that have no record in `batch/dispatch/providers`, and those that several share.

# The account has no money left, or may not spend more: OpenAI, Anthropic, LiteLLM's proxy, Moonshot, DashScope, One
# API, Google.
_SPENT_CODES = frozenset(
    {
        "credit_balance_exhausted",
        "billing_not_active",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "enforced_spend_limit_reached",
        "budget_exceeded",
        "exceeded_current_quota_error",
        "Arrearage",
        "insufficient_user_quota",
        "insufficient_balance",
        "BILLING_DISABLED",
    }
)
# The endpoint will serve no row with this key or this model: OpenAI, Azure, Groq, Mistral, GitHub, Google (the reason
# in `details`), AWS.
_UNSERVED_CODES = frozenset(
    {
        "organization_restricted",
        "model_decommissioned",
        "invalid_model",
        "unknown_model",
        "API_KEY_INVALID",
        "API_KEY_SERVICE_BLOCKED",
        "SERVICE_DISABLED",
        "CONSUMER_SUSPENDED",
        "AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
    }
)
# The endpoint refuses this row for its text or its length; some of these codes come with 403, others with 500.
_ROW_CODES = frozenset(
    {
        "content_filter",
        "moderation_blocked",
        "data_inspection_failed",
        "DataInspectionFailed",
        "sensitive_words_detected",
    }
)
# The requests come too fast for our share of the server's capacity, or for all of it. An overloaded server is not at
# fault either: it works, at its capacity, and asks for a slower pace. If overload were treated as a failure, a few
# minutes of it would use up the rows' attempts and eject the endpoint; as it is treated as throttling, the rows wait,
# and fewer are sent at once.
_THROTTLE_CODES = frozenset(
    {
        "too_many_requests",
        "throttling_error",
        "server_is_overloaded",
        "provider_overloaded",
        "engine_overloaded_error",
        "RESOURCE_EXHAUSTED",
        # AWS, some of them with 400.
        "ThrottlingException",
        "TooManyRequestsException",
        "ModelNotReadyException",
        "Throttling",
    }
)

# The server failed, and the error states no status, as inside a 2xx answer. If there is a status, it is more precise
# than these codes.
SERVER_CODES = frozenset(
    {
        "server_error",
        "api_error",
        "internal_error",
        "internal_server_error",
        "InternalError",
        "upstream_error",
        "service_unavailable",
        "ServiceUnavailable",
        "INTERNAL",
        "UNAVAILABLE",
    }
)

KINDS: dict[str, type[DispatchError]] = {
    **dict.fromkeys(_SPENT_CODES | _UNSERVED_CODES, Refused),
    **dict.fromkeys(_ROW_CODES, BadRequest),
    **dict.fromkeys(_THROTTLE_CODES, RateLimited),
    **{code: kind for provider in PROVIDERS.values() for code, kind in provider.error_codes.items()},
}
"""The class of error that each code stands for."""
ACCOUNT_CODES = frozenset(code for code, kind in KINDS.items() if kind is Refused)
"""Codes about the key, the money or the model, which therefore concern every row."""
ROW_CODES = frozenset(code for code, kind in KINDS.items() if kind is BadRequest)
"""Codes about one row's text or length."""

# MiniMax answers 200 with its own code in `base_resp`. This gives the HTTP status that each documented code stands for.
# 1039 is MiniMax's limit of tokens per minute, 1041 that of connections, 2045 that of growth, 2056 that of a plan's
# window. A row that gets a code that is not listed is retried, as after a 2xx without an answer.
MINIMAX_STATUSES = {
    **dict.fromkeys((1000, 1013, 1024, 1033), 500),
    1001: 504,
    **dict.fromkeys((1002, 1039, 1041, 2045, 2056), 429),
    **dict.fromkeys((1004, 2049), 401),
    1008: 402,
    **dict.fromkeys((1026, 1027, 1042, 2013), 400),
}

# The request is too long, in its body, its url or its headers (494: nginx). These statuses are decisive whatever code
# or wait comes with them, since waiting makes no request shorter: Groq sends 413 with the code of a rate limit.
TOO_LARGE = frozenset({413, 414, 431, 494})
# The statuses below decide if no code is known.
# The server refuses the content of this row's request.
_ROW = frozenset({400, 411, 422})
# The endpoint, or the account, will answer no row: no permission, no credit, no such model or path, a proxy that wants
# a password, JSON not accepted, a client certificate required (495 to 497: nginx), not available in this country.
_GONE = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 426, 451, 495, 496, 497})
# Too many requests (429, and Twitter's 420); capacity exceeded (498, of Groq's flex tier); the server is at its
# capacity (529, a status that Anthropic made up).
_THROTTLED = frozenset({420, 429, 498, 529})


def kind_of_status(status: int) -> type[DispatchError]:
    """Return the class of error that a status stands for if no code is known.

    An unknown 4xx is not the row's fault, so the row is retried. These are 408, 409 and 425; 424, with which
    text-generation-inference reports that a generation failed; 499, with which gateways report that the connection to
    the server behind them was closed; 423, 444, 460 and any other.
    """
    if status in _THROTTLED:
        return RateLimited
    if status in _ROW or status in TOO_LARGE:
        return BadRequest
    if status in _GONE or 300 <= status < 400:
        return Refused
    return ServerError
