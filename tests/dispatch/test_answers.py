"""From bytes to a Completion or an error, without a server."""

from contextlib import suppress
from email.utils import formatdate

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.transports.answers import SPENT_CODES, completion, one_line, refusal, retry_after
from batch.errors import BadAnswer, DispatchError, RateLimited, Refused
from schemas.openai_batch import CHAT_URL, EMBEDDINGS_URL

NOW = 1_700_000_000.0


def now() -> float:
    return NOW


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
    """Whatever is not a whole number from 0 is no count; unknown is not 0."""
    answer = completion(orjson.dumps({"choices": [{}], "usage": usage}), CHAT_URL)
    assert (answer.prompt_tokens, answer.completion_tokens) == (prompt_tokens, completion_tokens)


def test_embeddings_have_no_answer_tokens() -> None:
    """Where the prompt was counted the answer's count is 0; where it was not, both are unknown."""
    counted = completion(b'{"data":[{}],"usage":{"prompt_tokens":4}}', EMBEDDINGS_URL)
    assert (counted.prompt_tokens, counted.completion_tokens) == (4, 0)
    uncounted = completion(b'{"data":[{}]}', EMBEDDINGS_URL)
    assert (uncounted.prompt_tokens, uncounted.completion_tokens) == (None, None)
    with pytest.raises(BadAnswer):
        completion(b'{"choices":[{}]}', EMBEDDINGS_URL)


@given(st.binary(max_size=60), st.integers(300, 599))
def test_any_bytes_with_any_status_are_an_error_of_ours(raw: bytes, status: int) -> None:
    """Nothing a server writes makes reading a refusal fail, and what is kept of it is one line of JSON."""
    error = refusal(status, raw, {}, now)
    assert isinstance(error, DispatchError)
    assert error.status == status
    assert "\n" not in str(error)
    if error.body is not None:
        assert b"\n" not in error.body
        assert isinstance(orjson.loads(error.body), dict)


@given(st.binary(max_size=60))
def test_any_bytes_with_200_are_an_answer_or_a_bad_one(raw: bytes) -> None:
    """Reading raises BadAnswer and nothing else."""
    with suppress(BadAnswer):
        completion(raw, CHAT_URL)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
        lambda c: st.lists(c) | st.dictionaries(st.text(max_size=5), c),
    )
)
def test_one_line_changes_nothing_but_breaks(value: object) -> None:
    """The same JSON on one line, however it was printed."""
    for option in (0, orjson.OPT_INDENT_2, orjson.OPT_APPEND_NEWLINE):
        raw = orjson.dumps(value, option=option)
        line = one_line(raw, orjson.loads(raw))
        assert b"\n" not in line
        assert orjson.loads(line) == value


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_any_header_says_how_long_or_nothing(milliseconds: str, seconds: str, date: str) -> None:
    """A wait is never negative, infinite or a failure."""
    wait = retry_after({"retry-after-ms": milliseconds, "retry-after": seconds, "date": date}, now)
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
    """A date in the past is no wait, one that is no date says nothing."""
    said = retry_after({"retry-after": text}, now)
    assert said == wait or (wait is None and (said is None or said > 1e9))


@pytest.mark.parametrize("code", sorted(SPENT_CODES))
def test_spent_credit_is_no_rate_limit(code: str) -> None:
    """No waiting cures it, whichever provider says so."""
    assert type(refusal(429, orjson.dumps({"error": {"code": code}}), {}, now)) is Refused
    assert type(refusal(429, orjson.dumps({"error": {"code": f"not_{code}"}}), {}, now)) is RateLimited


@pytest.mark.parametrize("code", ["the prompt was: hello", "x" * 81, "a\nb", "", None, 7, ["x"]])
def test_only_codes_are_shown(code: object) -> None:
    """What is not one short word may be a prompt or a key, and stays out of the message."""
    error = refusal(400, orjson.dumps({"error": {"code": code, "message": "secret"}}), {}, now)
    assert (str(error), error.code) == ("HTTP 400", None)
