"""Which codes and statuses stand for which of our errors."""

from batch.dispatch.providers.registry import PROVIDERS
from batch.errors import BadRequest, DispatchError, RateLimited, Refused, ServerError

# What providers call what ails them, in `error.code` or near it. Such a word says more than the status it comes with,
# which differs by provider: budgets end with 400, 402, 403 or 429, and overload comes as 429, 503 or 529. Here are the
# codes of providers that have no record in `batch/dispatch/providers`, and those that several share.

# No money left, or none to be spent: OpenAI, Anthropic, LiteLLM's proxy, Moonshot, DashScope, One API, Google.
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
# A key or a model that the endpoint will not serve to any row: OpenAI, Azure, Groq, Mistral, GitHub,
# Google (the reason in `details`), AWS.
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
# What this row says, or how long it is; some come with 403, others with 500.
_ROW_CODES = frozenset(
    {
        "content_filter",
        "moderation_blocked",
        "data_inspection_failed",
        "DataInspectionFailed",
        "sensitive_words_detected",
    }
)
# Too fast for our share, or for all that the server has. The latter is no fault of the endpoint either: it works, at
# its capacity, and asks for a slower pace. Taken for a failure, an overload of minutes would use up the attempts of
# the rows and eject the endpoint; taken for throttling, the rows wait, and fewer are sent at once.
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

# The server's trouble, said without a status: by an error inside a 2xx answer. With a status, that is more precise.
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
"""What each code stands for."""
ACCOUNT_CODES = frozenset(code for code, kind in KINDS.items() if kind is Refused)
"""They speak of the key, the money or the model, and so of every row."""
ROW_CODES = frozenset(code for code, kind in KINDS.items() if kind is BadRequest)
"""They speak of one row's text or length."""

# MiniMax answers 200 with its own code beneath `base_resp`: the status that each of its documented codes stands for.
# 1039 is its limit of tokens a minute, 1041 that of connections, 2045 that of growth, 2056 that of a plan's window.
# A code that is not here is tried again, as a 2xx without an answer is.
MINIMAX_STATUSES = {
    **dict.fromkeys((1000, 1013, 1024, 1033), 500),
    1001: 504,
    **dict.fromkeys((1002, 1039, 1041, 2045, 2056), 429),
    **dict.fromkeys((1004, 2049), 401),
    1008: 402,
    **dict.fromkeys((1026, 1027, 1042, 2013), 400),
}

# The request is too long, in its body, its url or its headers (494: nginx). No code and no wait makes it shorter: Groq
# sends 413 with the code of a rate limit.
TOO_LARGE = frozenset({413, 414, 431, 494})
# Where no code is known. What this row's request holds is refused.
_ROW = frozenset({400, 411, 422})
# Of an endpoint, or an account, that will answer no row: no permission, no credit, no such model or path, a proxy that
# wants a password, no JSON taken, a certificate wanted (495 to 497: nginx), not in this country.
_GONE = frozenset({401, 402, 403, 404, 405, 406, 407, 410, 415, 426, 451, 495, 496, 497})
# Too many requests, also in Twitter's way; capacity exceeded, which Groq's flex tier calls 498; the server is at its
# capacity, a status that Anthropic made up.
_THROTTLED = frozenset({420, 429, 498, 529})


def kind_of_status(status: int) -> type[DispatchError]:
    """What a status says by itself. An unknown 4xx is not the row's fault: it is tried again.

    Such are 408, 409 and 425; 424, with which text-generation-inference says that a generation failed; 499, with which
    gateways say that the server behind them was left; 423, 444, 460 and whatever else comes up.
    """
    if status in _THROTTLED:
        return RateLimited
    if status in _ROW or status in TOO_LARGE:
        return BadRequest
    if status in _GONE or 300 <= status < 400:
        return Refused
    return ServerError
