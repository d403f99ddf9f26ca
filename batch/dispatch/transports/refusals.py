"""Turns an error that a server answered with, by its status or inside a 2xx answer, into a DispatchError."""

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

# Statuses that may mean a wrong path: a base url with one `/v1` too many or too few.
_NO_SUCH_PATH = frozenset({404, 405})

# Codes are short words. Anything else in an error body may repeat a prompt or a key and is not shown.
_CODE = re.compile(r"[\w.\-/:\[\]]{1,80}\Z")

# Keys under which servers state the HTTP status that an error inside a 2xx answer stands for.
_STATUSES = ("code", "status", "status_code", "statusCode", "http_status", "http_code")

_STATUS_DIGITS = 3

_NO_ERROR = frozenset({"", "0", "200", "ok", "success", "none", "null"})

# Messages about a request that can never pass, because it alone exceeds the limit: OpenAI and Groq say so in words
# only, with the same code as any other refusal by that limit.
_TOO_LARGE = re.compile(r"\b(?:request|input|prompt|message)s?(?: is| was)? too (?:large|long|big)\b", re.IGNORECASE)
# Messages about the key or the money that come with the code (invalid_request_error) and the status (400) of a bad row,
# as at Anthropic, xAI and Gemini. If a message matches only because it quotes the row's text, no harm is done: that row
# fails once other rows are answered.
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
    """Return the error that a non-2xx answer stands for.

    Args:
        asked: the request's body; text of it that the server's message repeats is left out of what is shown.
        path: the requested path; shown if the server does not know it.
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
    """Return the error that a 2xx answer holds, as OpenRouter's do, classified as if its code were the HTTP status.

    Args:
        error: the `error` of the answer or of one of its choices.
        answer: the whole answer.
        asked: as for `refusal`.
        hide: as for `refusal`.
        status: the HTTP status that the error stands for if the answer states none.
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
    """Return the error in MiniMax's `base_resp` and the HTTP status it stands for; `None` if there is no error.

    The status is `None` if the code is not one of MiniMax's documented codes.
    """
    base = answer.get("base_resp")
    if not isinstance(base, dict):
        return None
    code = base.get("status_code")
    if not isinstance(code, int) or code == 0:
        return None
    said = base.get("status_msg")
    return {"code": str(code), "message": said if isinstance(said, str) else ""}, MINIMAX_STATUSES.get(code)


def says_something(error: Any) -> bool:
    """Whether the value of an answer's `error` key is really an error.

    Some servers always send the key, with an empty value or the code of a success.
    """
    if not isinstance(error, dict):
        return bool(error)
    if any(error.get(key) for key in ("message", "type", "detail", "msg")) or _stated(error) is not None:
        return True
    code = error.get("code")
    return isinstance(code, str) and code.lower() not in _NO_ERROR


def usage_of(answer: Any, url: str = "") -> Tokens | None:
    """Return the (prompt, answer) tokens in the `usage` of an unusable answer; `None` if it states neither."""
    if not isinstance(answer, dict) or "usage" not in answer:
        return None
    told_tokens = tokens(answer["usage"], url)
    return None if told_tokens == (None, None) else told_tokens


def one_line(raw: bytes, parsed: Any) -> bytes:
    """Return the JSON on one line, so that it can be spliced into a journal line; unchanged if it has no line break.

    Args:
        raw: the JSON as the server sent it.
        parsed: the value of `raw`.
    """
    if b"\n" not in raw and b"\r" not in raw:
        return raw
    try:
        return orjson.dumps(parsed)
    except orjson.JSONEncodeError:
        # orjson reads deeper nesting than it writes. Line breaks are only between tokens.
        return raw.replace(b"\n", b" ").replace(b"\r", b" ")


def code_like(value: Any) -> str | None:
    """Return the value if it is a short word, as codes and reasons are, else `None`: prose may repeat a prompt."""
    return value if isinstance(value, str) and _CODE.match(value) else None


def _message(what: str, status: int | None, code: str | None, param: str | None, path: str = "") -> str:
    """Write the error's message: `what` it is, then path, code, parameter and advice, as far as they are known."""
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
    """Parse JSON; `None` if it is not JSON."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None


def _error(parsed: Any) -> dict[str, Any]:
    """Return the object that describes the error: under `error`, the body itself (Mistral, DashScope), or in a list
    (Google). It is empty if there is no such object.
    """
    if isinstance(parsed, list) and parsed:
        parsed = parsed[0]
    if not isinstance(parsed, dict):
        return {}
    error = parsed.get("error")
    return error if isinstance(error, dict) else parsed


def _wait(header: Header, parsed: Any, wall: WallClock) -> float | None:
    """Return the seconds that the server asks us to wait, from its headers or else from the body."""
    wait = retry_after(header, wall)
    return wait if wait is not None else wait_in(parsed, server_time(header, wall))


def _legible(get: Header) -> Header:
    """Wrap the look-up of an answer's headers, so that a header that is not ASCII counts as missing."""

    def header(name: str) -> str | None:
        try:
            return get(name)
        except ValueError:
            return None

    return header


def _stated(error: Mapping[str, Any]) -> int | None:
    """Return the HTTP status that an error in a 2xx answer states; `None` if it states none from 400 to 599."""
    for key in _STATUSES:
        value = error.get(key)
        if isinstance(value, str) and len(value) == _STATUS_DIGITS and value.isdecimal():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599:
            return value
    return None


def _code(error: dict[str, Any], status: int | None) -> str | None:
    """Return `code`, else `type` (or AWS's `__type`), if it is a short word and does not just repeat the status."""
    for key in ("code", "type", "__type"):
        value = code_like(error.get(key))
        if value is not None and value != str(status):
            return value
    return None


def _param(error: dict[str, Any]) -> str | None:
    """Return the parameter at fault, if it is a name; prose is not shown."""
    return code_like(error.get("param"))


def _kind(status: int | None, error: dict[str, Any], wait: float | None) -> tuple[type[DispatchError], str | None]:
    """Classify the error; return its class and the code that decided it, or `None` if no code did.

    The first known code decides, the most precise first. A code says more than the status, except for the statuses
    about the request's size. If no code is known, a refusal that says when to come back is a throttle, whatever its
    status: 402 for too much money in flight, 403, 503.

    Args:
        status: `None` for an error inside a 2xx answer that does not state a status.
        error: the object that describes the error.
        wait: the seconds that the server asks us to wait; `None` if it does not ask.
    """
    if status is not None and 300 <= status < 400:
        return Refused, None
    if status in TOO_LARGE:
        return BadRequest, None
    for word in _words(error):
        kind = KINDS.get(word)
        # A 5xx is never final: gateways answer `model_not_found` when none of their servers is up.
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
    """Yield the codes in an error, the most precise first.

    First Google's `details[].reason`, then Anthropic's `details.error_code`, Azure's `innererror.code`, then the keys
    of the other providers.
    """
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
        # AWS: "com.amazon.coral.service#ThrottlingException"; in AWS's header ":http://..." follows it.
        yield amazon.rpartition("#")[2].partition(":")[0]


def _flagged(error: dict[str, Any]) -> bool:
    """Whether OpenRouter's moderation stopped the prompt, which it reports with status 403 and no code."""
    metadata = error.get("metadata")
    return isinstance(metadata, dict) and ("flagged_input" in metadata or bool(metadata.get("reasons")))


def _never_fits(error: dict[str, Any]) -> bool:
    """Whether the message of a refusal by a limit says that this request alone exceeds the limit."""
    said = next(messages(error), "")
    limit, requested = _LIMIT.search(said), _REQUESTED.search(said)
    if limit is not None and requested is not None:
        return _whole(requested[1]) > _whole(limit[1])
    return _TOO_LARGE.search(said) is not None


def _whole(digits: str) -> int:
    """Read a whole number that may have commas between its digits; digits after the 18th are ignored."""
    return int(digits.replace(",", "")[:18])
