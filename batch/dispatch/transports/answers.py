"""From an HTTP answer to a Completion or a DispatchError. Foreign facts end here."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from batch.clock import WallClock
from batch.dispatch.request import Completion
from batch.errors import BadAnswer, BadRequest, DispatchError, RateLimited, Refused, ServerError
from schemas.openai_batch import EMBEDDINGS_URL

# Refusals under status 429 that no waiting cures, by the provider's `error.code` (OpenAI, Azure, LiteLLM's proxy).
SPENT_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "organization_usage_limit_exceeded",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "enforced_spend_limit_reached",
        "budget_exceeded",
    }
)

# Statuses of an endpoint that will answer no row: no permission, no credit, no such model or path, elsewhere.
_GONE = frozenset({301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 410})
# Not this row's fault, and not for long.
_PASSING = frozenset({408, 409, 425})

# Codes are short words. Anything else in an error body may repeat a prompt or a key and is not shown.
_CODE = re.compile(r"[\w.\-/:\[\]]{1,80}\Z")


def completion(raw: bytes, url: str) -> Completion:
    """Read a 2xx answer.

    Raises:
        BadAnswer: it is not JSON, or lacks `choices` (`data` for embeddings).
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadAnswer("the answer is not JSON", status=200) from error
    wanted = "data" if url == EMBEDDINGS_URL else "choices"
    if not isinstance(answer, dict) or not isinstance(answer.get(wanted), list) or not answer[wanted]:
        raise BadAnswer(f"the answer has no {wanted!r}", status=200, body=one_line(raw, answer))
    usage = answer.get("usage")
    prompt_tokens = completion_tokens = None
    if isinstance(usage, dict):
        prompt_tokens = _count(usage.get("prompt_tokens"))
        completion_tokens = _count(usage.get("completion_tokens"))
        if completion_tokens is None and wanted == "data" and prompt_tokens is not None:
            completion_tokens = 0
    return Completion(one_line(raw, answer), prompt_tokens, completion_tokens)


def refusal(status: int, raw: bytes, headers: Mapping[str, str], wall: WallClock) -> DispatchError:
    """The error that a non-2xx answer stands for. `headers` has lower-case names."""
    parsed = _loads(raw)
    code = _code(parsed)
    message = f"HTTP {status}" + (f": {code}" if code else "")
    body = one_line(raw, parsed) if isinstance(parsed, dict) else None
    wait = retry_after(headers, wall)
    kind: type[DispatchError]
    if status == 429:
        kind = Refused if code in SPENT_CODES or _detail_code(parsed) in SPENT_CODES else RateLimited
    elif status in _GONE:
        kind = Refused
        if 300 <= status < 400:
            message += "; redirects are not followed, give the final url"
    elif status >= 500 or status in _PASSING:
        kind = ServerError
    else:
        kind = BadRequest
    return kind(message, status=status, code=code, retry_after=wait, body=body)


def retry_after(headers: Mapping[str, str], wall: WallClock) -> float | None:
    """Seconds to stay away: `retry-after-ms`, then `retry-after` in seconds (whole or not) or as a date; any length."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None:
        return max(0.0, seconds)
    if text:
        try:
            until = parsedate_to_datetime(text).timestamp()
            # The server's own clock, where it tells it: ours may be off.
            said = headers.get("date")
            now = parsedate_to_datetime(said).timestamp() if said else wall()
        except ValueError:
            return None
        return max(0.0, until - now)
    return None


def one_line(raw: bytes, parsed: Any) -> bytes:
    """The JSON as it came where it has no line break, so that it can be spliced into a journal line."""
    return orjson.dumps(parsed) if b"\n" in raw or b"\r" in raw else raw


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and value == value and abs(value) != float("inf") else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _loads(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _code(parsed: Any) -> str | None:
    """`error.code`, else `error.type`, if it is a code and not prose."""
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return None
    for key in ("code", "type"):
        value = error.get(key)
        if isinstance(value, str) and _CODE.match(value):
            return value
    return None


def _detail_code(parsed: Any) -> str | None:
    """Anthropic's `error.details.error_code`."""
    error = parsed.get("error") if isinstance(parsed, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    value = details.get("error_code") if isinstance(details, dict) else None
    return value if isinstance(value, str) else None
