"""Lines of batch files: `{custom_id, method, url, body}`, as providers and gateways have them."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from batch.reading.invalid import InvalidRow, type_name
from schemas.openai_batch import BATCH_URLS, CHAT_URL, COMPLETIONS_URL, EMBEDDINGS_URL, RESPONSES_URL, BatchUrl

# Each url's own end, the longer ones first: `/chat/completions` ends in `/completions` too.
_ENDS: tuple[tuple[str, BatchUrl], ...] = (
    ("/chat/completions", CHAT_URL),
    ("/completions", COMPLETIONS_URL),
    ("/embeddings", EMBEDDINGS_URL),
    ("/responses", RESPONSES_URL),
)
# Keys that only requests of the Responses API have.
_OF_RESPONSES = ("instructions", "max_output_tokens", "previous_response_id")


def is_batch_line(record: Mapping[str, Any]) -> bool:
    """Is it `body` with an object, or `method` and `url` and no prompt? Scraped data may have urls too."""
    if isinstance(record.get("body"), dict):
        return True
    if not record.keys().isdisjoint(("messages", "prompt", "input")):
        return False
    return ("method" in record and "url" in record) or _is_text_of_object(record)


def batch_request(record: Mapping[str, Any]) -> tuple[BatchUrl, dict[str, Any]]:
    """The API and the request of a batch line. Raises InvalidRow.

    `method` and `url` may be left out: the body's keys then tell which API is meant.
    """
    method = record.get("method")
    if method is not None and not (isinstance(method, str) and method.strip().upper() in ("POST", "")):
        raise InvalidRow("bad_method", "method must be POST")
    url = record.get("url")
    if url in BATCH_URLS:
        return url, _body(record)
    if url is None or url == "":
        body = _body(record)
        return _api_of_body(body), body
    api = _api_of_url(url) if isinstance(url, str) else None
    if api is None:
        raise InvalidRow(
            "bad_url",
            "url must end in /chat/completions, /completions, /embeddings or /responses; other APIs are not sent",
        )
    return api, _body(record)


@lru_cache(maxsize=256)
def _api_of_url(url: str) -> BatchUrl | None:
    """The API that a url ends in, whatever comes before: Azure's deployments, a whole address, or nothing."""
    path = "/" + url.strip().partition("?")[0].partition("#")[0].strip("/").lower()
    return next((api for end, api in _ENDS if path.endswith(end)), None)


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
        # CSV and many a Parquet file keep the body as text.
        try:
            parsed = orjson.loads(body)
        except orjson.JSONDecodeError:
            parsed = None
        if isinstance(parsed, dict):
            return parsed
        raise InvalidRow("wrong_type", "body must be an object, or its JSON as a string; this string is no JSON object")
    if body is None:
        raise InvalidRow("missing_column", "body is null" if "body" in record else "body is missing")
    raise InvalidRow("wrong_type", f"body must be an object, not {type_name(body)}")


def _is_text_of_object(record: Mapping[str, Any]) -> bool:
    body = record.get("body")
    return isinstance(body, str) and body[:1] == "{" and "custom_id" in record
