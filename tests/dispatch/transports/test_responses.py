"""Response bytes become a `Completion` or an error, without a server."""

import json
from contextlib import suppress
from email.utils import formatdate
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch.dispatch.transports.parsing.error_codes import ACCOUNT_CODES, KINDS, ROW_CODES
from batch.dispatch.transports.parsing.waits import retry_after
from batch.dispatch.transports.refusals import one_line, refusal
from batch.dispatch.transports.responses import completion
from batch.errors import BadAnswer, BadRequest, DispatchError, RateLimited, Refused, ServerError
from batch.limits import Allowance
from schemas.endpoints import Provider
from schemas.openai_batch import BATCH_URLS, CHAT_URL, EMBEDDINGS_URL, RESPONSES_URL

NOW = 1_700_000_000.0


def now() -> float:
    return NOW


def silent(name: str) -> str | None:
    """A response without any header."""
    return None


def refused(status: int, error: object, provider: Provider = "generic", **headers: str) -> DispatchError:
    """The error for a response of this status with `error` in its body."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, orjson.dumps({"error": error}), said.get, provider, now)


@pytest.mark.parametrize(
    ("usage", "prompt_tokens", "completion_tokens"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 0}, 3, 0),
        ({"prompt_tokens": 3}, 3, None),
        ({"prompt_tokens": "3", "completion_tokens": 1.5}, None, None),
        ({"prompt_tokens": -3, "completion_tokens": True}, None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_a_count_that_was_not_said_is_unknown(
    usage: object, prompt_tokens: int | None, completion_tokens: int | None
) -> None:
    """A token count that is not a whole number from 0 is unknown, which is not the same as 0."""
    answer = completion(orjson.dumps({"choices": [{"text": "ok"}], "usage": usage}), CHAT_URL)
    assert (answer.prompt_tokens, answer.completion_tokens) == (prompt_tokens, completion_tokens)


def test_embeddings_have_no_answer_tokens() -> None:
    """If the server counted the prompt, the answer has 0 tokens; if it did not, both counts are unknown."""
    counted = completion(b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":4}}', EMBEDDINGS_URL)
    assert (counted.prompt_tokens, counted.completion_tokens) == (4, 0)
    uncounted = completion(b'{"data":[{"embedding":[1]}]}', EMBEDDINGS_URL)
    assert (uncounted.prompt_tokens, uncounted.completion_tokens) == (None, None)
    with pytest.raises(BadAnswer):
        completion(b'{"choices":[{}]}', EMBEDDINGS_URL)


@given(st.binary(max_size=60), st.integers(300, 599))
def test_any_bytes_with_any_status_are_an_error_of_ours(raw: bytes, status: int) -> None:
    """Whatever bytes a server sends with an error status, a `DispatchError` results; its body is one line of JSON."""
    error = refusal(status, raw, silent, "generic", now)
    assert isinstance(error, DispatchError)
    assert error.status == status
    assert "\n" not in str(error)
    if error.body is not None:
        assert b"\n" not in error.body
        assert isinstance(orjson.loads(error.body), dict)


@given(st.binary(max_size=60))
def test_any_bytes_with_200_are_an_answer_or_a_bad_one(raw: bytes) -> None:
    """Any bytes with status 200 are either read as an answer or raise `BadAnswer`."""
    with suppress(BadAnswer):
        completion(raw, CHAT_URL)


KEYS = st.sampled_from(
    [
        *("choices", "message", "delta", "content", "text", "logprobs", "index", "finish_reason", "usage", "object"),
        *("error", "code", "status", "type", "details", "metadata", "headers", "base_resp"),
        *("output", "data", "embedding", "response"),
    ]
)
PARTS = st.recursive(
    st.none() | st.booleans() | st.integers(0, 600) | st.sampled_from(["", "x", "429", "error", "completed", 10**30]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@example(events=[{"type": []}, {"type": {}, "object": []}], url=CHAT_URL, streamed=True)
@example(events=[{"output": ["x"], "status": {}}], url=RESPONSES_URL, streamed=False)
@given(
    events=st.lists(st.dictionaries(KEYS, PARTS, max_size=4), min_size=1, max_size=4),
    url=st.sampled_from(BATCH_URLS),
    streamed=st.booleans(),
)
def test_any_json_with_200_is_an_answer_or_an_error_of_ours(
    events: list[dict[str, Any]], url: str, *, streamed: bool
) -> None:
    """Members of any type, in one object or in the events of a stream, give an answer or a `DispatchError`."""
    texts = [json.dumps(event).encode() for event in events]
    raw = b"".join(b"data: %b\n\n" % text for text in texts) + b"data: [DONE]\n\n" if streamed else texts[0]
    said = ""
    try:
        kept: bytes | None = completion(raw, url).raw
    except DispatchError as error:
        said, kept = str(error), error.body
    assert "\n" not in said
    assert kept is None or isinstance(orjson.loads(kept), dict)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda c: st.lists(c) | st.dictionaries(st.text(max_size=5), c),
    )
)
def test_one_line_changes_nothing_but_breaks(value: object) -> None:
    """`one_line` returns the same JSON on one line, however it was printed."""
    for option in (0, orjson.OPT_INDENT_2, orjson.OPT_APPEND_NEWLINE):
        raw = orjson.dumps(value, option=option)
        line = one_line(raw, orjson.loads(raw))
        assert b"\n" not in line
        assert orjson.loads(line) == value


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_any_header_says_how_long_or_nothing(milliseconds: str, seconds: str, date: str) -> None:
    """Whatever the headers say, the wait is none, or finite and not negative."""
    wait = retry_after({"retry-after-ms": milliseconds, "retry-after": seconds, "date": date}.get, now)
    assert wait is None or 0 <= wait < float("inf")


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        (formatdate(NOW + 10, usegmt=True), 10.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Mon, 32 Foo 2024 00:00:00 GMT", None),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
    ],
)
def test_dates_good_and_bad(text: str, wait: float | None) -> None:
    """A date in the past is a wait of 0, a text that is no date gives none; the year 9999 gives none or a huge one."""
    said = retry_after({"retry-after": text}.get, now)
    assert said == wait or (wait is None and (said is None or said > 1e9))


@pytest.mark.parametrize("status", [400, 402, 403, 404, 429])
@pytest.mark.parametrize("code", sorted(ACCOUNT_CODES))
def test_what_no_waiting_cures_takes_the_endpoint_out(code: str, status: int) -> None:
    """Spent credit, a bad key and an unknown model are recognized by the code, whichever status comes with it."""
    error = refused(status, {"code": code, "type": "rate_limit_error"})
    assert (type(error), error.blame, error.code) == (Refused, "gone", code)
    assert type(refused(429, {"code": f"not_{code}"})) is RateLimited


@pytest.mark.parametrize("code", sorted(ACCOUNT_CODES))
def test_a_5xx_is_never_for_good(code: str) -> None:
    """With a 5xx status these codes do not count: gateways call a model unknown while all its servers are down."""
    assert type(refused(503, {"code": code})) is ServerError


@pytest.mark.parametrize("status", [400, 403, 404, 422, 429, 500])
@pytest.mark.parametrize("code", sorted(ROW_CODES))
def test_what_a_row_says_is_the_rows_fault(code: str, status: int) -> None:
    """A code about the row, such as a content filter or a prompt too long, is the row's fault at any status.

    The endpoint stays in use, and the row is not sent again.
    """
    error = refused(status, {"code": code})
    assert (type(error), error.blame, error.retryable) == (BadRequest, "row", False)


def test_a_flagged_prompt_is_the_rows_fault() -> None:
    """OpenRouter reports a flagged prompt with status 403 and `metadata`; another 403 with metadata is about the
    endpoint.
    """
    metadata = {"reasons": ["violence"], "flagged_input": "...", "provider_name": "x"}
    assert refused(403, {"code": 403, "message": "", "metadata": metadata}).blame == "row"
    assert refused(403, {"code": 403, "message": "", "metadata": {"provider_name": "x"}}).blame == "gone"


@pytest.mark.parametrize("status", [400, 403, 429, 500, 503, 529])
@pytest.mark.parametrize("code", sorted(code for code, kind in KINDS.items() if kind is RateLimited))
def test_an_overloaded_server_asks_for_a_slower_pace(code: str, status: int) -> None:
    """An overloaded server is throttling: its rows wait without using up attempts, for as long as it asks."""
    error = refused(status, {"code": code}, retry_after="7")
    assert (type(error), error.blame, error.retry_after) == (RateLimited, "throttle", 7.0)


def test_a_status_decides_where_no_code_is_known() -> None:
    """If the code is unknown, the status decides: 529 is an overload, but a bare 503 may be a proxy with no server."""
    kinds = {status: type(refused(status, {"code": "new"})) for status in (400, 403, 404, 413, 429, 500, 503, 529)}
    assert kinds == {
        400: BadRequest,
        403: Refused,
        404: Refused,
        413: BadRequest,
        429: RateLimited,
        500: ServerError,
        503: ServerError,
        529: RateLimited,
    }


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"error": {"code": "429", "type": "budget_exceeded"}}, "budget_exceeded"),
        (
            {"error": {"type": "rate_limit_error", "details": {"error_code": "enforced_spend_limit_reached"}}},
            "enforced_spend_limit_reached",
        ),
        ({"code": "Arrearage", "message": "", "request_id": "x"}, "Arrearage"),
        ({"object": "error", "type": "invalid_model", "code": "1500"}, "invalid_model"),
        ([{"error": {"code": "model_not_found"}}], "model_not_found"),
    ],
)
def test_the_most_precise_word_decides_wherever_it_stands(body: object, code: str) -> None:
    """LiteLLM's proxy has the code in `type`, Anthropic in `details`, Mistral and DashScope at the top, Google in a
    list.
    """
    error = refusal(429, orjson.dumps(body), silent, "generic", now)
    assert (type(error), error.code, str(error)) == (Refused, code, f"HTTP 429: {code}")


def test_googles_details_are_a_list() -> None:
    """Parts of another shape than expected, as Google's list of `details`, do not stop the code from being read."""
    error = refused(429, {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"reason": "x"}], "innererror": 7})
    assert (type(error), error.code) == (RateLimited, "RESOURCE_EXHAUSTED")


USED_UP = {"x_ratelimit_limit_requests": "60", "x_ratelimit_remaining_requests": "0"}


@pytest.mark.parametrize(
    ("provider", "wait"), [("azure", 9.0), ("openai", None), ("generic", None), ("anthropic", None)]
)
def test_only_a_windows_reset_is_a_wait(provider: Provider, wait: float | None) -> None:
    """Azure's limit opens again at its reset, so the reset is a wait. A limit that refills evenly is full at its reset,
    which would be far too long a wait.
    """
    error = refused(429, {}, provider, **USED_UP, x_ratelimit_reset_requests="9s")
    assert error.retry_after == wait
    assert error.allowances == (() if provider == "anthropic" else (Allowance("requests", 60, 0, 9),))


def test_a_wait_that_is_said_is_kept() -> None:
    """`retry-after` takes precedence over resets, and no reset turns a failure into a throttle."""
    assert refused(429, {}, "azure", **USED_UP, x_ratelimit_reset_requests="9s", retry_after="2").retry_after == 2
    assert refused(500, {}, "azure", **USED_UP, x_ratelimit_reset_requests="9s").retry_after is None


def test_a_redirect_is_a_redirect() -> None:
    """A redirect refuses the endpoint, whatever code its body has."""
    assert type(refused(307, {"code": "rate_limit_exceeded"})) is Refused


def test_a_status_is_no_code() -> None:
    """A code that only repeats the status is replaced by the type."""
    assert (refused(400, {"code": "400", "type": "new"}).code, refused(400, {"code": "400"}).code) == ("new", None)


@pytest.mark.parametrize("code", ["the prompt was: hello", "x" * 81, "a\nb", "", None, 7, ["x"]])
def test_only_codes_are_shown(code: object) -> None:
    """A code that is not one short word may be a prompt or a key, so it is neither kept nor shown."""
    error = refused(400, {"code": code})
    assert (str(error), error.code) == ("HTTP 400", None)
