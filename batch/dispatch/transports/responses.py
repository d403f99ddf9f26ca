"""Turns a 2xx answer into a Completion, or raises the error that it stands for.

Servers' deviations from the API are handled here, so that no other room needs to know of them. A good answer is parsed
once, by orjson; the other code here is for answers that are not what the API promises.
"""

from typing import Any, NoReturn

import orjson

from batch.clock import WallClock
from batch.dispatch.request import Completion
from batch.dispatch.transports.parsing import lenient_json
from batch.dispatch.transports.parsing.event_stream import Unfinished, assemble, is_event_stream
from batch.dispatch.transports.parsing.responses_api import fault_of
from batch.dispatch.transports.parsing.usage import tokens
from batch.dispatch.transports.rate_limit_headers import Header
from batch.dispatch.transports.refusals import (
    code_like,
    error_inside,
    minimax_error,
    one_line,
    says_something,
    usage_of,
)
from batch.dispatch.transports.words import Hide, server_words
from batch.errors import BadAnswer, BadVector, DispatchError, NoChoices
from batch.limits import Allowance
from schemas.openai_batch import EMBEDDINGS_URL, RESPONSES_URL

# Far longer than any real answer, and short enough for the memory of all answers that may be in flight. A longer body
# is not an answer, or never ends.
MOST_ANSWER_BYTES = 64 << 20

# The key that holds the answers, for the APIs where it is not `choices`.
_LISTS = {EMBEDDINGS_URL: "data", RESPONSES_URL: "output"}
# The `finish_reason` with which OpenRouter ends a choice when the provider behind it broke off.
_BROKEN_OFF = "error"
_BAD_GATEWAY = 502
# Values of `finish_reason` that do not explain why a choice has no message; length and content_filter would.
_UNEXPLAINED = (None, "", "stop")
# Stands for an item that is null, since `None` means that all items are good.
_NOTHING = "null"


def _no_header(name: str) -> str | None:
    """Look up a header of an answer that has no headers."""
    return None


def completion(
    raw: bytes,
    url: str,
    allowances: tuple[Allowance, ...] = (),
    *,
    header: Header = _no_header,
    wall: WallClock = lambda: 0.0,
    asked: bytes = b"",
    hide: Hide = str,
) -> Completion:
    """Read the body `raw` of a 2xx answer to a request for `url`.

    Args:
        allowances: the rate limits that the answer's headers state.
        header: looks up the answer's headers, which may say how long to wait after an error in the body.
        asked: the request's body; text of it that the server's message repeats is left out of what is shown.
        hide: masks our secrets in what is shown.

    Raises:
        BadAnswer: the body is not an answer, or lacks `choices` (`data` for embeddings, `output` for responses).
        BadVector: an embedding, or a number in one, is missing.
        NoChoices: the choices are missing or empty, or one has neither message nor text.
        DispatchError: the body holds an error, which is classified as if its code were the HTTP status.
    """
    try:
        answer = orjson.loads(raw)
    except orjson.JSONDecodeError:
        answer = _read_leniently(raw, url, asked, hide)
        raw = orjson.dumps(answer)
        _check_vectors(answer, url)
    wanted = _LISTS.get(url, "choices")
    if not isinstance(answer, dict):
        inner = _unwrapped(answer)
        if inner is not None:
            return completion(inner, url, allowances, header=header, wall=wall, asked=asked, hide=hide)
        raise BadAnswer(f"the answer has no {wanted!r}", status=200)
    error = answer.get("error")
    if error and says_something(error):
        raise error_inside(error, answer, raw, header, wall, asked=asked, hide=hide)
    if url == RESPONSES_URL:
        fault = fault_of(answer)
        if fault is not None:
            raise BadAnswer(fault, status=200, body=one_line(raw, answer), usage=usage_of(answer, url))
    else:
        items = answer.get(wanted)
        if not items or type(items) is not list:
            _raise_without(url, answer, raw, header, wall, asked, hide)
        fault = _fault_of_choices(items) if wanted == "choices" else _fault_of_vectors(items)
        if fault is not None:
            raise _error_of_item(fault, answer, raw, url, header, wall, asked, hide)
    prompt_tokens, completion_tokens = tokens(answer.get("usage"), url)
    return Completion(one_line(raw, answer), prompt_tokens, completion_tokens, allowances)


def _read_leniently(raw: bytes, url: str, asked: bytes, hide: Hide) -> Any:
    """Parse a body that orjson refuses: a stream of events, or JSON with NaN or half a surrogate pair in it.

    Raises:
        BadAnswer: the body cannot be read in any of these ways, or was cut off.
    """
    if raw.lstrip().startswith(b":"):
        # OpenRouter sends comment lines to keep a connection alive while the model is at work.
        raw = b"\n".join(line for line in raw.split(b"\n") if not line.startswith(b":")).lstrip()
    if is_event_stream(raw):
        try:
            answer = assemble(raw)
        except Unfinished as error:
            raise BadAnswer(str(error), status=200, usage=usage_of(error.answer, url)) from error
        if answer is not None:
            return answer
    try:
        return lenient_json.loads(raw)
    except ValueError as error:
        if not raw.strip():
            raise BadAnswer("the answer is empty", status=200) from error
        # A body that begins like JSON is an answer that was cut off: its text is the model's, not the server's.
        begun = raw.lstrip()[:1] in (b"{", b"[")
        raise BadAnswer(
            "the answer is JSON that was cut off or is broken" if begun else "the answer is not JSON",
            status=200,
            words="" if begun else lambda: server_words(raw, None, asked, hide),
            usage=usage_of({"usage": lenient_json.usage_in(raw)}, url),
        ) from error


def _check_vectors(answer: Any, url: str) -> None:
    """Raise BadVector if a number of an embedding is null, as NaN and infinite numbers are after lenient parsing."""
    if url != EMBEDDINGS_URL:
        return
    items = answer.get("data") if isinstance(answer, dict) else None
    vectors = [item.get("embedding") for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    if any(isinstance(vector, list) and None in vector for vector in vectors):
        said = "the embedding has a number in it that is NaN or infinite"
        raise BadVector(said, status=200, usage=usage_of(answer, url))


def _fault_of_choices(choices: list[Any]) -> Any:
    """Return the first choice that is not an answer, or `None` if all are answers."""
    for choice in choices:
        if type(choice) is not dict or choice.get("error") or choice.get("finish_reason") == _BROKEN_OFF:
            return choice if choice is not None else _NOTHING
        if not choice.get("message") and "text" not in choice and choice.get("finish_reason") in _UNEXPLAINED:
            return choice
    return None


def _fault_of_vectors(items: list[Any]) -> Any:
    """Return the first item without an embedding, or `None` if all have one."""
    for item in items:
        if type(item) is not dict or not item.get("embedding"):
            return item if item is not None else _NOTHING
    return None


def _error_of_item(
    item: Any,
    answer: dict[str, Any],
    raw: bytes,
    url: str,
    header: Header,
    wall: WallClock,
    asked: bytes,
    hide: Hide,
) -> DispatchError:
    """Return the error of an answer in which `item`, a choice or an embedding, cannot be used."""
    usage = usage_of(answer, url)
    if url == EMBEDDINGS_URL:
        if isinstance(item, dict) and item.get("error"):
            inside = error_inside(item["error"], answer, raw, header, wall, asked=asked, hide=hide)
            if not isinstance(inside, BadAnswer):
                return inside
        said = "an item of the answer has no embedding"
        return BadVector(said, status=200, words=lambda: server_words(raw, item, asked, hide), usage=usage)
    if not isinstance(item, dict):
        return BadAnswer("a choice is no object", status=200, usage=usage)
    if item.get("error") or item.get("finish_reason") == _BROKEN_OFF:
        error = item.get("error") or {"code": _BAD_GATEWAY}
        return error_inside(error, answer, raw, header, wall, asked=asked, hide=hide, status=_BAD_GATEWAY)
    said = "a choice has neither message nor text"
    return NoChoices(said, status=200, body=one_line(raw, answer), usage=usage)


def _unwrapped(answer: Any) -> bytes | None:
    """Return the JSON object of an answer that is the only item of a list, or is a string; `None` for other answers."""
    if isinstance(answer, list) and len(answer) == 1 and isinstance(answer[0], dict):
        return orjson.dumps(answer[0])
    if isinstance(answer, str) and answer.lstrip().startswith("{"):
        return answer.encode(errors="replace")
    return None


def _raise_without(
    url: str, answer: dict[str, Any], raw: bytes, header: Header, wall: WallClock, asked: bytes, hide: Hide
) -> NoReturn:
    """Raise the error of an answer that lacks the list of choices or embeddings."""
    own = minimax_error(answer)
    if own is not None:
        error, status = own
        raise error_inside(error, answer, raw, header, wall, asked=asked, hide=hide, status=status)
    wanted = _LISTS.get(url, "choices")
    if wanted == "choices" and answer.get("choices", ...) in (None, []):
        reason = _blocked_because(answer)
        raise NoChoices(
            f"no choices (blocked: {reason})" if reason else "no choices (blocked?)",
            status=200,
            code=reason,
            words=lambda: server_words(raw, answer, asked, hide),
            body=one_line(raw, answer),
            usage=usage_of(answer, url),
        )
    inside = error_inside(answer, answer, raw, header, wall, asked=asked, hide=hide)
    if not isinstance(inside, BadAnswer):
        # The body itself describes an error: DashScope, Mistral.
        raise inside
    raise BadAnswer(
        f"the answer has no {wanted!r}",
        status=200,
        code=inside.code,
        words=lambda: server_words(raw, answer, asked, hide),
        body=one_line(raw, answer),
        usage=usage_of(answer, url),
    )


def _blocked_because(answer: dict[str, Any]) -> str | None:
    """Return why there are no choices, as the provider's own code: Google's block reason, or the filter of Azure that
    stopped the prompt, or the finish reason; `None` if the answer gives no reason.
    """
    for name in ("promptFeedback", "prompt_feedback"):
        feedback = answer.get(name)
        if isinstance(feedback, dict):
            return code_like(feedback.get("blockReason") or feedback.get("block_reason"))
    results = answer.get("prompt_filter_results")
    for result in results if isinstance(results, list) else ():
        filters = result.get("content_filter_results") if isinstance(result, dict) else None
        for name, found in filters.items() if isinstance(filters, dict) else ():
            if isinstance(found, dict) and found.get("filtered"):
                return code_like(name)
    return code_like(answer.get("finish_reason")) or code_like(answer.get("native_finish_reason"))
