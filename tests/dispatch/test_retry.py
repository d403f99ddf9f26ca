"""The retry rule decides from a request's attempts and its error; nothing in these tests sleeps."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.retry import BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS, RetryRule
from batch.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    DispatchError,
    NoChoices,
    NotConnected,
    RateLimited,
    Refused,
    ServerError,
    TimedOut,
)
from tests.fakes import request


def delay(error: DispatchError, attempts: int = 1, *, most: int = 6, seed: int = 0) -> float | None:
    asked = request()
    asked.attempts = attempts
    return RetryRule(most, Random(seed)).delay(asked, error)


@pytest.mark.parametrize("kind", [ServerError, TimedOut, ConnectionLost, BadAnswer, RateLimited])
def test_what_may_pass_is_tried_up_to_the_last_attempt(kind: type[DispatchError]) -> None:
    """A retryable error is retried until the row has had `max_attempts`."""
    assert delay(kind("x"), 5, most=6) is not None
    assert delay(kind("x"), 6, most=6) is None
    assert delay(kind("x"), 1, most=1) is None


def test_an_error_may_allow_fewer_attempts_than_the_job() -> None:
    """An answer without choices may be chance once, so the row has two attempts."""
    assert NoChoices.most_attempts == 2
    assert delay(NoChoices("x"), 1, most=6) is not None
    assert delay(NoChoices("x"), 2, most=6) is None


def test_a_rows_own_fault_is_never_tried_again() -> None:
    """A row that one endpoint refuses as bad would be refused by all, so it is not retried."""
    assert delay(BadRequest("x"), 1) is None


@pytest.mark.parametrize("kind", [NotConnected, Refused])
@pytest.mark.parametrize("attempts", [0, 1, 6, 100])
def test_an_endpoints_fault_costs_the_row_nothing(kind: type[DispatchError], attempts: int) -> None:
    """If nothing was sent, or the endpoint is out, the row is retried at once, however many attempts it has had."""
    assert delay(kind("x"), attempts) == 0.0


def test_a_throttled_row_waits_for_the_endpoint_only() -> None:
    """Only the endpoint pauses; the row may be sent to another one at once."""
    assert delay(RateLimited("x", retry_after=60), 1) == 0.0


@given(st.integers(1, 40), st.integers(0, 10_000))
def test_back_off_is_full_jitter(attempts: int, seed: int) -> None:
    """The back-off is between 0 and a bound, which doubles with each attempt up to `LONGEST_BACKOFF_SECONDS`."""
    wait = delay(ServerError("x"), attempts, most=100, seed=seed)
    assert wait is not None
    assert 0 <= wait <= min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** (attempts - 1))


def test_back_off_is_spread_evenly() -> None:
    """Over 10,000 draws the mean back-off is half of the bound, and both ends of the range are reached."""
    rule = RetryRule(10, Random(1))
    asked = request()
    asked.attempts = 3
    waits = [wait for _ in range(10_000) if (wait := rule.delay(asked, ServerError("x"))) is not None]
    longest = BACKOFF_SECONDS * 4
    assert abs(sum(waits) / len(waits) - longest / 2) < 0.02 * longest
    assert min(waits) < 0.01 * longest
    assert max(waits) > 0.99 * longest


def test_the_same_seed_draws_the_same_waits() -> None:
    """The rule draws from the `Random` it is given, so a seed fixes the back-offs."""
    assert [delay(ServerError("x"), n, seed=7) for n in range(1, 5)] == [
        delay(ServerError("x"), n, seed=7) for n in range(1, 5)
    ]
