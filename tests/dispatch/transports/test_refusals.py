"""Refusals become errors by their status, code, words and waits, also inside 2xx answers."""

from typing import Any

import orjson
import pytest

from batch.dispatch.judging.refusals import about_account
from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.responses import completion
from batch.errors import BadAnswer, BadRequest, DispatchError, NoChoices, RateLimited, Refused, ServerError
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL

NOW = 1_700_000_000.0
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def refused(status: int, body: object = None, **headers: str) -> DispatchError:
    """The error for a response with this status, body and headers."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, orjson.dumps(body), said.get, "generic", lambda: NOW)


def inside(answer: dict[str, Any], url: str = CHAT_URL, **headers: str) -> DispatchError:
    """The error that reading a 2xx answer raises."""
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    with pytest.raises(DispatchError) as caught:
        completion(orjson.dumps(answer), url, header=said.get, wall=lambda: NOW)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "statuses"),
    [
        (RateLimited, [420, 429, 498, 529]),
        (ServerError, [408, 409, 418, 421, 423, 424, 425, 444, 460, 499, 500, 502, 503, 504, 520, 522, 524, 599]),
        (Refused, [301, 307, 401, 402, 403, 404, 405, 407, 410, 415, 451, 495]),
        (BadRequest, [400, 411, 413, 414, 422, 431, 494]),
    ],
)
def test_a_status_by_itself(kind: type[DispatchError], statuses: list[int]) -> None:
    """Without a code the status decides: an unknown 4xx is not the row's fault, and exceeded capacity is a throttle."""
    assert {status: type(refused(status)) for status in statuses} == dict.fromkeys(statuses, kind)


@pytest.mark.parametrize("status", [413, 414, 431])
@pytest.mark.parametrize("code", ["rate_limit_exceeded", "insufficient_quota", "new"])
def test_a_request_that_is_too_long_stays_so(status: int, code: str) -> None:
    """A request that is too long is a `BadRequest`, whatever its code and even with a `retry-after`."""
    assert type(refused(status, {"error": {"code": code}}, retry_after="2")) is BadRequest


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Request too large for gpt-4 in organization org-x on tokens per min (TPM): Limit 10000, Requested 12000.", 1),
        ("Tokens per minute: Limit: 6,000, Used: 0, Requested: 6,001. Visit ...", 1),
        ("The input is too long for this model's quota", 1),
        ("Rate limit reached on tokens per min (TPM): Limit 10000, Used 9500, Requested 700. Try again in 1.2s", 0),
        ("Too many requests", 0),
    ],
)
@pytest.mark.parametrize("code", ["rate_limit_exceeded", None])
def test_a_429_that_no_waiting_cures_is_the_rows(words: str, kind: int, code: str | None) -> None:
    """A request larger than the whole limit can never pass; only the server's words tell it from other 429s."""
    error = refused(429, {"error": {"message": words, "type": "tokens", "code": code}}, retry_after="3")
    assert type(error) is (BadRequest if kind else RateLimited)


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 424, 500, 502, 503])
def test_a_refusal_that_says_when_to_come_back_is_a_throttle(status: int) -> None:
    """A `retry-after` header makes a refusal a throttle, unless the wait is 0 or the code says that waiting is
    useless.
    """
    assert (type(refused(status, None, retry_after="1")), refused(status, None, retry_after="1").retry_after) == (
        RateLimited,
        1.0,
    )
    assert type(refused(status, None, retry_after="0")) is not RateLimited
    assert type(refused(status, {"error": {"code": "content_filter"}}, retry_after="1")) is BadRequest


@pytest.mark.parametrize(
    ("body", "wait"),
    [
        (
            [
                {
                    "error": {
                        "code": 429,
                        "details": [
                            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
                            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"},
                        ],
                    }
                }
            ],
            17.0,
        ),
        ({"error": {"details": [{"retryDelay": {"seconds": "3"}}]}}, 3.0),
        ({"error": "Model m is currently loading", "estimated_time": 60.5}, 60.5),
        ({"error": {"message": "slow", "retry_after": 2}}, 2.0),
        ({"error": {"message": "slow", "retry_after_ms": 250}}, 0.25),
        ({"detail": "slow", "retryAfter": "1m30s"}, 90.0),
        ({"error": {"type": "usage_limit_reached", "resets_in_seconds": 3600}}, 3600.0),
        ({"error": {"resets_at": NOW + 40}}, 40.0),
        ({"error": {"code": 429, "metadata": {"headers": {"X-RateLimit-Reset": str(int(NOW * 1000) + 5000)}}}}, 5.0),
        ({"error": {"message": "Please try again in 20s"}}, None),
        ({"error": {"message": "x", "retry_after": "soon"}}, None),
        ({"error": {"retry_after": True, "details": [None, 3], "metadata": []}}, None),
        ({"estimated_time": -1}, None),
    ],
)
@pytest.mark.parametrize("status", [402, 429, 503])
def test_waits_are_read_from_the_body(body: object, wait: float | None, status: int) -> None:
    """Waits are read from Google's RetryInfo, Hugging Face's loading time and other fields, but never from prose."""
    error = refused(status, body)
    assert error.retry_after == wait
    assert (type(error) is RateLimited) == (wait is not None or status == 429)
    assert refused(status, body, retry_after="7").retry_after == 7.0


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"code": 429, "message": "Provider returned error"}, RateLimited, 429),
        ({"code": "429", "message": "x"}, RateLimited, 429),
        ({"code": 402, "message": "Insufficient credits"}, Refused, 402),
        ({"code": 502, "message": "Provider disconnected"}, ServerError, 502),
        ({"code": 400, "message": "bad"}, BadRequest, 400),
        ({"code": 403, "metadata": {"reasons": ["x"], "flagged_input": "y"}, "message": "m"}, BadRequest, 403),
        ({"status": 503, "message": "x"}, ServerError, 503),
        ({"code": "rate_limit_exceeded", "message": "x"}, RateLimited, 200),
        ({"type": "insufficient_quota", "message": "x"}, Refused, 200),
        ({"type": "server_error", "message": "x"}, ServerError, 200),
        ({"message": "x", "retry_after": 3}, RateLimited, 200),
        ({"message": "something"}, BadAnswer, 200),
        ({"code": "content_filter", "message": ""}, BadRequest, 200),
        ("overloaded_error", RateLimited, 200),
        ("something", BadAnswer, 200),
    ],
)
@pytest.mark.parametrize("choices", [None, [], [CHOICE]])
def test_an_error_in_a_2xx_answer_is_what_its_code_would_be(
    error: object, kind: type[DispatchError], status: int, choices: object
) -> None:
    """The error decides, whatever choices come with it; it gets the status that its code stands for, and its words."""
    found = inside({"id": "c", "choices": choices, "error": error})
    assert (type(found), found.status) == (kind, status)
    assert found.words or not error.get("message")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (1002, RateLimited, 429),
        (1039, RateLimited, 429),
        (1004, Refused, 401),
        (2049, Refused, 401),
        (1008, Refused, 402),
        (1026, BadRequest, 400),
        (1024, ServerError, 500),
        (9999, BadAnswer, 200),
    ],
)
@pytest.mark.parametrize("choices", [{"choices": None}, {"choices": []}, {}])
def test_what_minimax_says_beneath_base_resp_is_its_error(
    code: int, kind: type[DispatchError], status: int, choices: dict[str, Any]
) -> None:
    """MiniMax reports errors with status 200 and no choices: a limit is a throttle, and key and balance are about the
    account.
    """
    found = inside({**choices, "base_resp": {"status_code": code, "status_msg": "told so"}})
    assert (type(found), found.status, found.code, found.words) == (kind, status, str(code), "told so")
    assert about_account(found) is (kind is Refused)


def test_a_base_resp_of_success_is_no_error() -> None:
    """MiniMax sends `base_resp` with every answer; if its code is 0 and there are no choices, the row was blocked."""
    fine = {"status_code": 0, "status_msg": ""}
    assert completion(orjson.dumps({"choices": [CHOICE], "base_resp": fine}), CHAT_URL).raw
    assert type(inside({"choices": None, "base_resp": fine})) is NoChoices


def test_an_error_beside_usage_is_billed_by_it() -> None:
    """An error with usage is billed by it; without usage a refusal is not billed, but a 502 is."""
    assert inside({"error": {"code": 502}, "usage": USAGE}).usage == (10, 5)
    assert inside({"error": {"code": 429, "message": "x"}}).billed is False
    assert inside({"error": {"code": 502, "message": "x"}}).billed is True
    assert inside({"error": {"code": 429}}, retry_after="3").retry_after == 3.0


@pytest.mark.parametrize(
    "error", [None, {}, "", False, {"code": None, "message": None}, {"code": 0, "message": ""}, {"code": "OK"}]
)
def test_an_error_that_says_nothing_is_none(error: object) -> None:
    """An empty `error` is ignored, since some servers send one with every answer."""
    assert completion(orjson.dumps({"choices": [CHOICE], "error": error}), CHAT_URL).raw


@pytest.mark.parametrize(
    ("choice", "status"),
    [
        ({"finish_reason": "error", "error": {"code": 502, "message": "Provider disconnected"}}, 502),
        ({"finish_reason": "error"}, 502),
        ({"finish_reason": None, "error": {"message": "gone"}}, 502),
        ({"finish_reason": "error", "error": {"code": 429, "message": "busy"}}, 429),
    ],
)
def test_a_choice_that_broke_off_is_no_answer(choice: dict[str, Any], status: int) -> None:
    """OpenRouter returns the part of the answer that came; one broken-off choice makes the whole answer an error."""
    answer = {"choices": [CHOICE, CHOICE | choice], "usage": USAGE}
    error = inside(answer)
    assert (error.status, error.usage, error.retryable) == (status, (10, 5), True)
    assert type(error) is (RateLimited if status == 429 else ServerError)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"code": "Throttling", "message": "x"}, RateLimited),
        ({"code": "Arrearage", "message": "no money"}, Refused),
        ({"object": "error", "code": 429, "message": "busy"}, RateLimited),
        ({"detail": "Not Found"}, BadAnswer),
    ],
)
def test_an_error_at_the_top_of_a_2xx_answer(answer: dict[str, Any], kind: type[DispatchError]) -> None:
    """If the body has no choices, the body itself is read as the error, with its words."""
    error = inside(answer)
    assert type(error) is kind
    assert error.words
    assert type(inside(answer, EMBEDDINGS_URL)) is kind


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        ({"__type": "com.amazon.coral.service#ThrottlingException", "message": "x"}, {}, RateLimited),
        ({"message": "x"}, {"x_amzn_errortype": "ThrottlingException:http://internal.amazon.com/"}, RateLimited),
        ({"message": "x"}, {"x_amzn_errortype": "ValidationException"}, BadRequest),
        ({"__type": "AccessDeniedException", "Message": "x"}, {}, Refused),
        ([{"error": {"status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}], {}, Refused),
        ({"error": {"type": "invalid_request_error", "message": "Your credit balance is too low to"}}, {}, Refused),
        ({"code": "invalid argument", "error": "Incorrect API key provided: xx"}, {}, Refused),
        ({"error": {"message": "Invalid value for temperature"}}, {}, BadRequest),
    ],
)
def test_a_400_that_is_not_about_the_row_is_known_by_its_words(
    body: object, headers: dict[str, str], kind: type[DispatchError]
) -> None:
    """AWS throttles with status 400 and a type or header; other servers refuse keys and credit with 400."""
    error = refused(400, body, **headers)
    assert isinstance(error, kind)
    assert about_account(error) is (kind is Refused)


def test_a_wait_is_a_year_at_most() -> None:
    """A longer wait is cut to a year, and NaN is no wait."""
    assert refused(429, {}, retry_after="1e300").retry_after == 365 * 86400
    assert RateLimited("x", retry_after=float("nan")).retry_after is None


@pytest.mark.parametrize("item", [{"embedding": None}, {"embedding": []}, {"index": 0}, None, 5])
def test_an_item_without_an_embedding_is_its_rows_fault(item: object) -> None:
    """An item without a vector is the row's fault, and not stored as an ok row."""
    answer = {"data": [{"embedding": [0.5]}, item], "usage": {"prompt_tokens": 4}}
    error = inside(answer, EMBEDDINGS_URL)
    assert (error.blame, error.retryable, error.usage) == ("row", False, (4, 0))


def test_an_item_may_hold_an_error() -> None:
    """An error in an item is classified by its code, as an error of the whole answer is."""
    error = inside({"data": [{"index": 0, "error": {"code": 429, "message": "busy"}}]}, EMBEDDINGS_URL)
    assert isinstance(error, RateLimited)
    error = inside({"data": [{"index": 0, "error": {"message": "no text"}}]}, EMBEDDINGS_URL)
    assert (error.blame, "no text" in str(error)) == ("row", True)


@pytest.mark.parametrize("choice", [{"message": None, "finish_reason": "stop"}, {"index": 0}, {}])
def test_a_choice_with_nothing_in_it_is_no_answer(choice: dict[str, Any]) -> None:
    """An empty choice is `NoChoices`; if its finish reason says why it is empty, it is an answer."""
    error = inside({"choices": [choice], "usage": USAGE})
    assert (type(error), error.usage) == (NoChoices, (10, 5))
    whole = orjson.dumps({"choices": [{"index": 0, "finish_reason": "length"}]})
    assert completion(whole, CHAT_URL).raw == whole


def test_a_status_is_three_digits() -> None:
    """Only a code of three digits is read as a status; Python refuses to parse numbers of thousands of digits."""
    for code in ("9" * 5000, "0429", "42"):
        assert inside({"error": {"code": code, "message": "x"}}).status == 200
    assert inside({"error": {"code": "429", "message": "x"}}).status == 429
