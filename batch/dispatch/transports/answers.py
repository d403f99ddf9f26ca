"""From an HTTP answer to a Completion or a DispatchError. Foreign facts end here."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from batch.clock import WallClock
from batch.dispatch.request import Allowance, Completion
from batch.dispatch.transports.allowances import Header, moment, number, reopens, server_time, told
from batch.dispatch.transports.responses_api import fault_of
from batch.dispatch.transports.words import Hide, server_words
from batch.errors import BadAnswer, BadRequest, DispatchError, RateLimited, Refused, ServerError
from schemas.endpoints import Provider
from schemas.openai_batch import EMBEDDINGS_URL, RESPONSES_URL

# Far above any answer, and few enough for all that may be in flight: what is longer is no answer, or never ends.
MOST_ANSWER_BYTES = 64 << 20

# What providers call what ails them, in `error.code` or near it. Such a word says more than the status it comes with,
# which differs by provider: budgets end with 400, 402, 403 or 429, and overload comes as 429, 503 or 529.

# No money left, or none to be spent: OpenAI, Anthropic, LiteLLM's proxy, Moonshot, DashScope.
SPENT_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "billing_not_active",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "enforced_spend_limit_reached",
        "budget_exceeded",
        "exceeded_current_quota_error",
        "Arrearage",
    }
)
# A key or a model that the endpoint will not serve to any row: OpenAI, Azure, Groq, Mistral, GitHub.
UNSERVED_CODES = frozenset(
    {
        "invalid_api_key",
        "account_deactivated",
        "organization_restricted",
        "unsupported_country_region_territory",
        "model_not_found",
        "model_decommissioned",
        "invalid_model",
        "unknown_model",
        "DeploymentNotFound",
        "OperationNotSupported",
    }
)
# What this row says, or how long it is; some come with 403, others with 500.
ROW_CODES = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "ResponsibleAIPolicyViolation",
        "moderation_blocked",
        "invalid_prompt",
        "data_inspection_failed",
        "DataInspectionFailed",
        "sensitive_words_detected",
        "context_length_exceeded",
        "string_above_max_length",
        "request_too_large",
    }
)
# Too fast for our share, or for all that the server has. The latter is no fault of the endpoint either: it works, at
# its capacity, and asks for a slower pace. Taken for a failure, an overload of minutes would use up the attempts of
# the rows and eject the endpoint; taken for throttling, the rows wait, and fewer are sent at once.
THROTTLE_CODES = frozenset(
    {
        "rate_limit_exceeded",
        "rate_limit_error",
        "too_many_requests",
        "throttling_error",
        "slow_down",
        "server_is_overloaded",
        "overloaded_error",
        "provider_overloaded",
        "engine_overloaded_error",
        "RESOURCE_EXHAUSTED",
    }
)

_KINDS: dict[str, type[DispatchError]] = {
    **dict.fromkeys(SPENT_CODES | UNSERVED_CODES, Refused),
    **dict.fromkeys(ROW_CODES, BadRequest),
    **dict.fromkeys(THROTTLE_CODES, RateLimited),
}

# Where no code is known. Of an endpoint that will answer no row: no permission, no credit, no such model or path,
# elsewhere.
_GONE = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 410})
# Too many requests; the server is at its capacity, a status that Anthropic made up.
_THROTTLED = frozenset({429, 529})
# The path may be wrong: a base url with one `/v1` too many or too few.
_NO_SUCH_PATH = frozenset({404, 405})
# Not this row's fault, and not for long.
_PASSING = frozenset({408, 409, 425})

# No server means more; what is above would not fit the results' columns.
_MOST_TOKENS = 10**9

# What holds the answers of an API, beside the `choices` of the others.
_LISTS = {EMBEDDINGS_URL: "data", RESPONSES_URL: "output"}
_CHAT_USAGE = ("prompt_tokens", "completion_tokens")

# Codes are short words. Anything else in an error body may repeat a prompt or a key and is not shown.
_CODE = re.compile(r"[\w.\-/:\[\]]{1,80}\Z")


def completion(raw: bytes, url: str, allowances: tuple[Allowance, ...] = ()) -> Completion:
    """Read a 2xx answer, of which `allowances` are what its headers say.

    Raises:
        BadAnswer: it is not JSON, or lacks `choices` (`data` for embeddings, `output` for responses).
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadAnswer("the answer is not JSON", status=200) from error
    wanted = _LISTS.get(url, "choices")
    if not isinstance(answer, dict):
        fault: str | None = f"the answer has no {wanted!r}"
    elif url == RESPONSES_URL:
        fault = fault_of(answer)
    else:
        fault = None if isinstance(answer.get(wanted), list) and answer[wanted] else f"the answer has no {wanted!r}"
    if fault is not None:
        raise BadAnswer(fault, status=200, body=one_line(raw, answer))
    usage = answer.get("usage")
    prompt_tokens = completion_tokens = None
    if isinstance(usage, dict):
        prompt, output = ("input_tokens", "output_tokens") if url == RESPONSES_URL else _CHAT_USAGE
        prompt_tokens = _count(usage.get(prompt))
        completion_tokens = _count(usage.get(output))
        if completion_tokens is None and wanted == "data" and prompt_tokens is not None:
            completion_tokens = 0
    return Completion(one_line(raw, answer), prompt_tokens, completion_tokens, allowances)


def refusal(
    status: int,
    raw: bytes,
    header: Header,
    provider: Provider,
    wall: WallClock,
    *,
    asked: bytes = b"",
    path: str = "",
    hide: Hide = str,
) -> DispatchError:
    """The error that a non-2xx answer stands for.

    Args:
        asked: the request's body: the server's words are shown without what they repeat of it.
        path: what was asked for; shown where the server does not know it.
        hide: masks our secrets in what is shown.
    """
    parsed = _loads(raw)
    error = _error(parsed)
    kind, word = _kind(status, error)
    code = word or _code(error, status)
    param = _param(error)
    message = f"HTTP {status}"
    if path and status in _NO_SUCH_PATH:
        message += f" for {path}"
    if code:
        message += f": {code}"
    if param:
        message += f" ({param})"
    if 300 <= status < 400:
        message += "; redirects are not followed, give the final url"
    wait = retry_after(header, wall)
    if wait is None and kind is RateLimited:
        wait = reopens(header, provider, wall)
    return kind(
        message,
        status=status,
        code=code,
        param=param,
        words=lambda: server_words(raw, parsed, asked, hide),
        retry_after=wait,
        body=one_line(raw, parsed) if isinstance(parsed, dict) else None,
        allowances=told(header, provider, wall),
    )


def retry_after(header: Header, wall: WallClock) -> float | None:
    """Seconds to stay away: `retry-after-ms`, then `retry-after` in seconds (whole or not) or as a date; any length."""
    milliseconds = number(header("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = header("retry-after")
    seconds = number(text)
    if seconds is None and text:
        until = moment(text)
        seconds = None if until is None else until - server_time(header, wall)
    return None if seconds is None else max(0.0, seconds)


def one_line(raw: bytes, parsed: Any) -> bytes:
    """The JSON as it came where it has no line break, so that it can be spliced into a journal line."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    try:
        return orjson.dumps(parsed)
    except orjson.JSONEncodeError:
        # orjson reads deeper nesting than it writes. Line breaks are only between tokens.
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


def _loads(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _error(parsed: Any) -> dict[str, Any]:
    """What an error body says of the error: beneath `error`, at its top (Mistral, DashScope), or in a list (Google)."""
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    return error if isinstance(error, dict) else parsed


def _code(error: dict[str, Any], status: int) -> str | None:
    """`code`, else `type`, if it is a code, no prose, and not just the status again."""
    for key in ("code", "type"):
        value = error.get(key)
        if isinstance(value, str) and _CODE.match(value) and value != str(status):
            return value
    return None


def _param(error: dict[str, Any]) -> str | None:
    """The parameter at fault; it is a name and no prose, as codes are."""
    value = error.get("param")
    return value if isinstance(value, str) and _CODE.match(value) else None


def _kind(status: int, error: dict[str, Any]) -> tuple[type[DispatchError], str | None]:
    """By the first word that is known, which is given too, the most precise first; else by the status."""
    if status >= 400:
        for word in _words(error):
            kind = _KINDS.get(word)
            # A 5xx is never for good: gateways say `model_not_found` where none of their servers is up.
            if kind is not None and not (kind is Refused and status >= 500):
                return kind, word
        if _flagged(error):
            return BadRequest, None
    if status in _THROTTLED:
        return RateLimited, None
    if status in _GONE:
        return Refused, None
    return ServerError if status >= 500 or status in _PASSING else BadRequest, None


def _words(error: dict[str, Any]) -> Iterator[str]:
    """Where providers say what it is: Anthropic's `details.error_code`, Azure's `innererror.code`, then all others'."""
    for inside, key in (
        (error.get("details"), "error_code"),
        (error.get("innererror"), "code"),
        (error, "code"),
        (error, "type"),
        (error, "status"),  # Google
    ):
        value = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(value, str):
            yield value


def _flagged(error: dict[str, Any]) -> bool:
    """Did OpenRouter's moderation stop the prompt? It says so under status 403 and by no code."""
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or bool(metadata.get("reasons")))
