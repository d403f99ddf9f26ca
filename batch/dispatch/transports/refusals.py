"""From an error that a server answered with, by its status or inside a 2xx answer, to one of ours."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from batch.clock import WallClock
from batch.dispatch.transports.parsing.error_codes import (
    KINDS,
    MINIMAX_STATUSES,
    SERVER_CODES,
    TOO_LARGE,
    kind_of_status,
)
from batch.dispatch.transports.parsing.usage import Tokens, tokens
from batch.dispatch.transports.parsing.waits import retry_after, wait_in
from batch.dispatch.transports.rate_limit_headers import Header, parse_rate_limits, server_time, window_reset_after
from batch.dispatch.transports.words import Hide, messages, server_words
from batch.errors import AccountRefused, BadAnswer, BadRequest, DispatchError, RateLimited, Refused, ServerError
from schemas.endpoints import Provider

# The path may be wrong: a base url with one `/v1` too many or too few.
_NO_SUCH_PATH = frozenset({404, 405})

# Codes are short words. Anything else in an error body may repeat a prompt or a key and is not shown.
_CODE = re.compile(r"[\w.\-/:\[\]]{1,80}\Z")

# What servers call the status that an error inside a 2xx answer stands for.
_STATUSES = ("code", "status", "status_code", "statusCode", "http_status", "http_code")

_STATUS_DIGITS = 3

_NO_ERROR = frozenset({"", "0", "200", "ok", "success", "none", "null"})

# A request that can never pass, because it alone is more than the limit: OpenAI and Groq say so in words only, with the
# code of any other refusal by that limit.
_TOO_LARGE = re.compile(r"\b(?:request|input|prompt|message)s?(?: is| was)? too (?:large|long|big)\b", re.IGNORECASE)
# Of the key or the money, where the code (invalid_request_error) and the status (400) are those of a bad row, as at
# Anthropic, xAI and Gemini. A row whose text is quoted here loses nothing by it: it fails once others are answered.
_ACCOUNT = re.compile(
    r"\bcredit balance is too low|\binsufficient (?:balance|credits?|funds|quota)\b|\bout of credits\b"
    r"|\b(?:incorrect|invalid|expired) api[ _-]?key\b|\bapi[ _-]?key (?:is |has )?(?:not valid|invalid|expired)\b",
    re.IGNORECASE,
)
_MOST_SEARCHED = 300
_LIMIT = re.compile(r"\blimit:? *([0-9][0-9,]*)", re.IGNORECASE)
_REQUESTED = re.compile(r"\brequested:? *([0-9][0-9,]*)", re.IGNORECASE)


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
    header = _legible(header)
    error = _error(parsed)
    amazon = header("x-amzn-errortype")
    if amazon:
        error = {"__type": amazon, **error}
    wait = _wait(header, parsed, wall)
    kind, word = _kind(status, error, wait)
    if wait is None and kind is RateLimited:
        wait = window_reset_after(header, provider, wall)
    code = word or _code(error, status)
    return kind(
        _message(f"HTTP {status}", status, code, _param(error), path),
        status=status,
        code=code,
        param=_param(error),
        words=lambda: server_words(raw, parsed, asked, hide),
        retry_after=wait,
        body=one_line(raw, parsed) if isinstance(parsed, dict) else None,
        allowances=parse_rate_limits(header, provider, wall),
        usage=usage_of(parsed),
    )


def error_inside(
    error: Any,
    answer: Mapping[str, Any],
    raw: bytes,
    header: Header,
    wall: WallClock,
    *,
    asked: bytes,
    hide: Hide,
    status: int | None = None,
) -> DispatchError:
    """The error that a 2xx answer holds, as OpenRouter's do: what its code would be as a status.

    Args:
        error: of the answer or of one of its choices.
        answer: the whole.
        status: what it stands for where it does not say.
    """
    known = error if isinstance(error, dict) else {"code": error, "message": error} if isinstance(error, str) else {}
    status = _stated(known) or _stated(answer) or status
    wait = _wait(_legible(header), answer, wall)
    kind, word = _kind(status, known, wait)
    code = word or _code(known, status)
    what = "an error in a 2xx answer" if status is None else f"HTTP {status} in a 2xx answer"
    return kind(
        _message(what, status, code, _param(known)),
        status=status or 200,
        code=code,
        param=_param(known),
        words=lambda: server_words(raw, {"error": error}, asked, hide),
        retry_after=wait,
        body=one_line(raw, answer),
        usage=usage_of(answer),
    )


def minimax_error(answer: Mapping[str, Any]) -> tuple[dict[str, str], int | None] | None:
    """The error beneath MiniMax's `base_resp`, and the status that it stands for; `None`: the answer has none there."""
    base = answer.get("base_resp")
    if not isinstance(base, dict):
        return None
    code = base.get("status_code")
    if not isinstance(code, int) or code == 0:
        return None
    said = base.get("status_msg")
    return {"code": str(code), "message": said if isinstance(said, str) else ""}, MINIMAX_STATUSES.get(code)


def says_something(error: Any) -> bool:
    """Is this `error` of an answer one? Some servers always send the key, with nothing or a success in it."""
    if not isinstance(error, dict):
        return bool(error)
    if any(error.get(key) for key in ("message", "type", "detail", "msg")) or _stated(error) is not None:
        return True
    code = error.get("code")
    return isinstance(code, str) and code.lower() not in _NO_ERROR


def usage_of(answer: Any, url: str = "") -> Tokens | None:
    """(prompt, answer) tokens by the `usage` of an answer that is no good; `None`: it tells none."""
    if not isinstance(answer, dict) or "usage" not in answer:
        return None
    told_tokens = tokens(answer["usage"], url)
    return None if told_tokens == (None, None) else told_tokens


def one_line(raw: bytes, parsed: Any) -> bytes:
    """The JSON as it came where it has no line break, so that it can be spliced into a journal line."""
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    try:
        return orjson.dumps(parsed)
    except orjson.JSONEncodeError:
        # orjson reads deeper nesting than it writes. Line breaks are only between tokens.
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def code_like(value: Any) -> str | None:
    """The value if it is a short word, as codes and reasons are; prose may repeat a prompt."""
    return value if isinstance(value, str) and _CODE.match(value) else None


def _message(what: str, status: int | None, code: str | None, param: str | None, path: str = "") -> str:
    if path and status in _NO_SUCH_PATH:
        what += f" for {path}"
    if code:
        what += f": {code}"
    if param:
        what += f" ({param})"
    if status is not None and 300 <= status < 400:
        what += "; redirects are not followed, give the final url"
    return what


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


def _wait(header: Header, parsed: Any, wall: WallClock) -> float | None:
    """Seconds that the server wants us to stay away, by its headers or else in the body."""
    wait = retry_after(header, wall)
    return wait if wait is not None else wait_in(parsed, server_time(header, wall))


def _legible(get: Header) -> Header:
    """The headers of an answer; one that is not ASCII is as if it were not there."""

    def header(name: str) -> str | None:
        try:
            return get(name)
        except ValueError:
            return None

    return header


def _stated(error: Mapping[str, Any]) -> int | None:
    """The HTTP status that an error in a 2xx answer says it is."""
    for key in _STATUSES:
        value = error.get(key)
        if isinstance(value, str) and len(value) == _STATUS_DIGITS and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None


def _code(error: dict[str, Any], status: int | None) -> str | None:
    """`code`, else `type`, if it is a code, no prose, and not just the status again."""
    for key in ("code", "type", "__type"):
        value = code_like(error.get(key))
        if value is not None and value != str(status):
            return value
    return None


def _param(error: dict[str, Any]) -> str | None:
    """The parameter at fault; it is a name and no prose, as codes are."""
    return code_like(error.get("param"))


def _kind(status: int | None, error: dict[str, Any], wait: float | None) -> tuple[type[DispatchError], str | None]:
    """Which error it is, and the word that says so, if one does: the first that is known, the most precise first.

    A word says more than the status, but for those that speak of the request's size. Where no word is known, a refusal
    that says when to come back is a throttle, whatever its status: 402 for too much money in flight, 403, 503.

    Args:
        status: `None`: an error inside a 2xx answer that does not say what it stands for.
    """
    if status is not None and 300 <= status < 400:
        return Refused, None
    if status in TOO_LARGE:
        return BadRequest, None
    for word in _words(error):
        kind = KINDS.get(word)
        # A 5xx is never for good: gateways say `model_not_found` where none of their servers is up.
        if kind is not None and not (kind is Refused and status is not None and status >= 500):
            return (BadRequest, word) if kind is RateLimited and _never_fits(error) else (kind, word)
    if _flagged(error):
        return BadRequest, None
    of_status = BadAnswer if status is None else kind_of_status(status)
    if of_status is RateLimited and _never_fits(error):
        return BadRequest, None
    if wait:
        return RateLimited, None
    if of_status is BadRequest and _ACCOUNT.search(next(messages(error), "")[:_MOST_SEARCHED]):
        return AccountRefused, None
    if status is None:
        known = next((word for word in _words(error) if word in SERVER_CODES), None)
        return (BadAnswer, None) if known is None else (ServerError, known)
    return of_status, None


def _words(error: dict[str, Any]) -> Iterator[str]:
    """Where providers say what it is: Anthropic's `details.error_code`, Azure's `innererror.code`, then all others'."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        # Google's ErrorInfo: its `status` is only INVALID_ARGUMENT where the key is not valid.
        if isinstance(detail, dict) and isinstance(detail.get("reason"), str):
            yield detail["reason"]
    for inside, key in (
        (details, "error_code"),
        (error.get("innererror"), "code"),
        (error, "code"),
        (error, "type"),
        (error, "status"),  # Google
        (error, "error"),
        (error, "error_type"),  # text-generation-inference
    ):
        value = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(value, str):
            yield value
    amazon = error.get("__type")
    if isinstance(amazon, str):
        # AWS: "com.amazon.coral.service#ThrottlingException", in its header with ":http://..." behind it.
        yield amazon.rpartition("#")[2].partition(":")[0]


def _flagged(error: dict[str, Any]) -> bool:
    """Did OpenRouter's moderation stop the prompt? It says so under status 403 and by no code."""
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or bool(metadata.get("reasons")))


def _never_fits(error: dict[str, Any]) -> bool:
    """Does a refusal by a limit say that this request alone is more than the limit?"""
    said = next(messages(error), "")
    limit, requested = _LIMIT.search(said), _REQUESTED.search(said)
    if limit is not None and requested is not None:
        return _whole(requested[1]) > _whole(limit[1])
    return _TOO_LARGE.search(said) is not None


def _whole(digits: str) -> int:
    return int(digits.replace(",", "")[:18])
