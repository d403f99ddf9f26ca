"""Statuses and headers received over real HTTP become the right error, wait and remaining limits."""

import asyncio
from email.utils import formatdate

import pytest

from batch.errors import (
    BadRequest,
    DispatchError,
    RateLimited,
    Refused,
    ServerError,
)
from batch.limits import Allowance
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL
from tests.dispatch.transports.exchanges import GOOD, KEY, LIMITS, NOW, SAID
from tests.dispatch.transports.raw_server import http, says
from tests.dispatch.transports.test_transports import ask, fault


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (("retry-after-ms: 1500", "retry-after: 99"), 1.5),
        (("retry-after: 0.25",), 0.25),
        (("retry-after: 120",), 120.0),
        (("Retry-After: 7",), 7.0),
        ((f"retry-after: {formatdate(NOW + 90, usegmt=True)}",), 90.0),
        ((f"retry-after: {formatdate(NOW + 90, usegmt=True)}", f"date: {formatdate(NOW + 60, usegmt=True)}"), 30.0),
        ((f"retry-after: {formatdate(NOW - 90, usegmt=True)}",), 0.0),
        (("retry-after: -5",), 0.0),
        (("retry-after: soon",), None),
        (("retry-after: nan",), None),
        (("retry-after: inf",), None),
        ((), None),
    ],
)
def test_a_429_says_how_long_to_stay_away(headers: tuple[str, ...], wait: float | None) -> None:
    """The wait is read in milliseconds, in seconds or as a date, compared with the server's own `date` if given."""
    error = fault(says(http(429, b'{"error":{"code":"rate_limit_exceeded"}}', *headers)))
    assert isinstance(error, RateLimited)
    assert error.retry_after == wait


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"code":"context_length_exceeded"}}', BadRequest),
        (413, b"", BadRequest),
        (422, b'{"detail":[]}', BadRequest),
        (401, b'{"error":{"message":"bad key sk-very-secret"}}', Refused),
        (402, b"", Refused),
        (403, b"", Refused),
        (404, b'{"error":{"code":"model_not_found"}}', Refused),
        (408, b"", ServerError),
        (409, b"", ServerError),
        (500, b"<html>oops</html>", ServerError),
        (502, b"", ServerError),
        (503, b"", ServerError),
        (529, b'{"type":"error","error":{"type":"overloaded_error"}}', RateLimited),
        (503, b'{"error":{"code":"server_is_overloaded"}}', RateLimited),
        (403, b'{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}', BadRequest),
        (400, b'{"error":{"code":"400","type":"budget_exceeded"}}', Refused),
        (429, b'{"error":{"code":"insufficient_quota"}}', Refused),
        (429, b'{"error":{"type":"insufficient_quota","code":null}}', Refused),
        (429, b'{"error":{"type":"rate_limit_error","details":{"error_code":"credit_balance_exhausted"}}}', Refused),
        (429, b"slow down", RateLimited),
    ],
)
def test_each_status_means_one_thing(status: int, body: bytes, kind: type[DispatchError]) -> None:
    """Status and code decide which error an attempt ends in, and no error shows the key."""
    with pytest.raises(DispatchError) as caught:
        ask(says(http(status, body)))
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert KEY not in f"{caught.value} {caught.value!r}"


def test_a_server_may_say_when_it_is_back() -> None:
    """The Retry-After of a 503 is kept."""
    assert fault(says(http(503, b"", "retry-after: 3"))).retry_after == 3


@pytest.mark.parametrize("body", [GOOD, GOOD.replace(b"choices", b"data").replace(b"message", b"embedding")])
def test_a_good_answer_says_what_is_left(body: bytes) -> None:
    """A good answer comes with the limits that its headers state, for completions and for embeddings."""
    completion, _ = ask(says(http(200, body, *LIMITS)), EMBEDDINGS_URL if b"data" in body else CHAT_URL)
    assert completion.allowances == SAID
    assert ask(says(http(200, GOOD)))[0].allowances == ()


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_a_refusal_says_what_is_left(status: int) -> None:
    """An error of any status comes with the limits that its headers state."""
    assert fault(says(http(status, b"", *LIMITS))).allowances == SAID


def test_headers_are_read_as_the_provider_means_them() -> None:
    """Anthropic's limit headers are ignored for an OpenAI endpoint."""
    limits = ("anthropic-ratelimit-requests-limit: 9", "anthropic-ratelimit-requests-remaining: 3")
    assert ask(says(http(200, GOOD, *limits)), provider="openai")[0].allowances == ()
    assert ask(says(http(200, GOOD, *limits)), provider="anthropic")[0].allowances == (
        Allowance("requests", 9, 3, None),
    )


def test_headers_in_another_tongue_are_as_if_not_there() -> None:
    """Headers that are not ASCII are ignored: a good answer is kept, and a 429 stays a `RateLimited` without a wait."""

    async def odd(request: bytes, writer: asyncio.StreamWriter) -> None:
        head = (
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nretry-after: \xe9\r\nx-ratelimit-remaining-requests: \xff\r\n\r\n"
        )
        status, body = (200, GOOD) if b"/chat" in request.split(b"\r\n")[0] else (429, b"")
        writer.write(head % (status, len(body)) + body)
        await writer.drain()

    assert ask(odd)[0].allowances == ()
    with pytest.raises(RateLimited) as caught:
        ask(odd, EMBEDDINGS_URL)
    assert (caught.value.retry_after, caught.value.allowances) == (None, ())
