"""Lines of batch files, `{custom_id, method, url, body}`, in the variants of providers and gateways."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from batch.reading.invalid import InvalidRow, type_name
from batch.reading.notes import Fact
from batch.reading.requests.anthropic import FOUND_ANTHROPIC, to_chat_request
from batch.reading.requests.embeddings import FOUND_EMBEDDINGS
from schemas.openai_batch import BATCH_URLS, CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL, BatchUrl

# APIs by the end of their URL. Longer ends come first: `/chat/completions` ends in `/completions` too.
_APIS: Mapping[str, BatchUrl] = {
    "/chat/completions": CHAT_URL,
    "/completions": COMPLETIONS_URL,
    "/embeddings": EMBEDDINGS_URL,
    "/responses": RESPONSES_URL,
}
_ANTHROPIC_END = "/v1/messages"
# Keys that only requests of the Responses API have, and keys that only Anthropic's Messages API has.
_OF_RESPONSES = ("instructions", "max_output_tokens", "previous_response_id")
_OF_ANTHROPIC = ("system", "stop_sequences", "anthropic_version")


def is_batch_line(record: Mapping[str, Any]) -> bool:
    """Is the row a batch line: a `body` that is an object, or `method` and `url` without a prompt?

    A `url` alone does not make a batch line: scraped data have URLs too.
    """
    if isinstance(record.get("body"), dict):
        return True
    if not record.keys().isdisjoint(("messages", "prompt", "input")):
        return False
    return ("method" in record and "url" in record) or _is_text_of_object(record)


def batch_request(record: Mapping[str, Any]) -> tuple[BatchUrl, dict[str, Any], tuple[Fact, ...]]:
    """Return the API, the request and notes of a batch line. Raises InvalidRow.

    `method` and `url` may be left out; the body's keys then tell which API is meant. A request for Anthropic's API is
    translated into a chat request.
    """
    method = record.get("method")
    if method != "POST" and method is not None and not _is_post(method):
        raise InvalidRow("bad_method", "method must be POST")
    url = record.get("url")
    if url in BATCH_URLS:
        return url, _body(record), ()
    if url is None or url == "":
        body = _body(record)
        if body.get("messages") is not None and not body.keys().isdisjoint(_OF_ANTHROPIC):
            return CHAT_URL, to_chat_request(body, "body"), (FOUND_ANTHROPIC,)
        api = _api_of_body(body)
        return api, body, (FOUND_EMBEDDINGS,) if api == EMBEDDINGS_URL else ()
    end = _end_of(url) if isinstance(url, str) else None
    if end is None:
        raise InvalidRow(
            "bad_url",
            "url must end in /chat/completions, /completions, /embeddings or /responses; other APIs are not sent",
        )
    if end == _ANTHROPIC_END:
        return CHAT_URL, to_chat_request(_body(record), "body"), (FOUND_ANTHROPIC,)
    return _APIS[end], _body(record), ()


@lru_cache(maxsize=256)
def _end_of(url: str) -> str | None:
    """Return the API in which a URL ends, whatever comes before it (a host, Azure's deployments, or nothing)."""
    path = "/" + url.strip().partition("?")[0].partition("#")[0].strip("/").lower()
    return next((end for end in (*_APIS, _ANTHROPIC_END) if path.endswith(end)), None)


def _is_post(method: Any) -> bool:
    """Is the method POST, in any case, or a blank CSV cell?"""
    return isinstance(method, str) and method.strip().upper() in ("POST", "")


def _api_of_body(body: Mapping[str, Any]) -> BatchUrl:
    if body.get("messages") is not None:
        return CHAT_URL
    if body.get("prompt") is not None and "input" not in body and "max_output_tokens" not in body:
        return COMPLETIONS_URL
    given = body.get("input")
    if given is None:
        raise InvalidRow("missing_column", "url is missing, and body has none of messages, prompt and input")
    items = isinstance(given, list) and any(isinstance(item, dict) for item in given)
    return RESPONSES_URL if items or not body.keys().isdisjoint(_OF_RESPONSES) else EMBEDDINGS_URL


def _body(record: Mapping[str, Any]) -> dict[str, Any]:
    body = record.get("body")
    if isinstance(body, dict):
        return body
    if isinstance(body, str):
        # CSV files, and many Parquet files, store the body as text.
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = None
        if isinstance(parsed, dict):
            return parsed
        raise InvalidRow("wrong_type", "body must be an object, or its JSON as a string; this string is no JSON object")
    if body is None:
        other = next((name for name in ("params", "request") if record.get(name)), None)
        renamed = f"; rename {other} to body" if other is not None else ""
        raise InvalidRow("missing_column", f"body is {'null' if 'body' in record else 'missing'}{renamed}")
    raise InvalidRow("wrong_type", f"body must be an object, not {type_name(body)}")


def _is_text_of_object(record: Mapping[str, Any]) -> bool:
    body = record.get("body")
    return isinstance(body, str) and body[:1] == "{" and "custom_id" in record
