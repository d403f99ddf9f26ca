"""The dispatcher decides from errors of different rows whether a row or an endpoint is at fault, in virtual time."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from batch.dispatch.dispatcher import DispatchEnd
from batch.dispatch.judging.patience import date
from batch.dispatch.judging.refusals import BAD_ROWS, PROBES, REFUSED_ROWS
from batch.dispatch.ports import History
from batch.dispatch.request import Completion, Request
from batch.errors import AccountRefused, BadAnswer, BadRequest, DispatchError, RateLimited, Refused, ServerError
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.fakes import answer
from tests.virtual_time import run

Says = Callable[[Request, EndpointSpec, float], DispatchError | None]
"""The error that a server returns for a row at a time, in seconds since the start; `None`: it answers."""


def send(
    says: Says,
    rows: int = 100,
    *,
    endpoints: int = 1,
    answer_seconds: float = 0.5,
    spec: DispatchSpec | None = None,
    history: History | None = None,
    **limits: Any,
) -> tuple[MemoryWork, DispatchEnd, float, Counter[int]]:
    """Dispatch rows of one model; the server fails after 10 ms and answers after `answer_seconds`.

    Returns:
        The work, how the dispatch ended, the seconds it took, and the number of requests of each row.
    """
    sent: Counter[int] = Counter()
    work = MemoryWork({(0, "m"): list(range(rows))}, histories={0: history} if history is not None else {})
    limit = LimitsSpec.model_validate(limits or {"max_in_flight": 8})
    pool = tuple(EndpointSpec(url=f"http://e{i}/v1", model="m", limits=limit) for i in range(endpoints))

    async def main() -> tuple[DispatchEnd, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def server(request: Request, endpoint: EndpointSpec) -> Completion:
            sent[request.row] += 1
            error = says(request, endpoint, loop.time() - began)
            await asyncio.sleep(0.01 if error is not None else answer_seconds)
            if error is not None:
                raise error
            return answer()

        sending = built(work, server, [ModelSpec(name="m", endpoints=pool)], spec)
        sending.feed(0)
        sending.close_feed()
        async with asyncio.timeout(1_000_000):
            end = await sending.run()
        return end, loop.time() - began

    end, seconds = run(main())
    return work, end, seconds, sent


def ends(work: MemoryWork) -> dict[str, int]:
    return dict(Counter(outcome.status for outcome in work.outcomes.values()))


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 400, 422])
@pytest.mark.parametrize("row", [0, 50, 99])
def test_one_refused_row_of_a_hundred_fails_and_takes_nothing_along(status: int, row: int) -> None:
    """A refused row fails with the server's words, wherever it is in the input; the endpoint answers all others."""
    kind = BadRequest if status in (400, 422) else Refused

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        return kind(f"HTTP {status}", status=status, words="no such thing") if request.row == row else None

    work, end, _, sent = send(says)
    assert ends(work) == {"ok": 99, "failed": 1}
    failed = work.outcomes[row].error
    assert failed is not None
    assert (failed.status, "no such thing" in failed.message) == (status, True)
    assert not end.notes
    assert sent[row] <= (4 if status in (401, 402) else 2)


def test_a_row_that_one_endpoint_refuses_is_answered_by_another() -> None:
    """The first of two busy endpoints refuses three of a hundred rows; the second endpoint answers them."""

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        refuses = request.row in (3, 40, 99) and endpoint.url == "http://e0/v1"
        return Refused("HTTP 403", status=403) if refuses else None

    work, end, _, _ = send(says, endpoints=2, max_in_flight=2)
    assert ends(work) == {"ok": 100}
    assert not end.notes


@pytest.mark.parametrize(
    "error",
    [
        Refused("HTTP 402", status=402, words="credit is spent"),
        BadRequest("HTTP 400", status=400, code="invalid_request_error", words="credit is spent"),
        BadRequest("HTTP 422", status=422, words="credit is spent"),
    ],
)
@pytest.mark.parametrize("slow", [0.005, 0.5])
def test_a_sudden_wall_of_refusals_leaves_rows_unsent(error: DispatchError, slow: float) -> None:
    """When the credit ends, no row fails, whatever the status: few requests are sent, and the note quotes the error."""
    work, end, _, sent = send(
        lambda request, endpoint, at: error if at >= 50 * slow else None, 1000, answer_seconds=slow
    )
    counts = ends(work)
    assert counts.keys() == {"ok", "unsent"}
    assert sum(sent.values()) <= counts["ok"] + BAD_ROWS + 8 + PROBES
    assert any("credit is spent" in note for note in end.notes)
    reasons = {o.error.message for o in work.outcomes.values() if o.error is not None}
    assert all("credit is spent" in reason for reason in reasons)


def test_where_the_first_rows_are_all_refused_alike_the_run_stops_early() -> None:
    """An endpoint that has answered no row is out, even if the error code is about the row (a prompt too long)."""
    error = BadRequest("HTTP 400: context_length_exceeded", status=400, code="context_length_exceeded")
    work, end, _, sent = send(lambda request, endpoint, at: error, 10_000)
    assert ends(work) == {"unsent": 10_000}
    assert sum(sent.values()) <= BAD_ROWS + 8 + PROBES
    assert "answered nobody" in end.notes[0]


def test_a_clump_of_bad_rows_at_the_start_takes_no_endpoint_out() -> None:
    """The server refuses the first forty rows alike; rows from elsewhere in the input show that the endpoint works."""
    error = BadRequest("HTTP 400", status=400, words="bad image")
    work, end, _, _ = send(lambda request, endpoint, at: error if request.row < 40 else None, 400)
    assert ends(work) == {"ok": 360, "failed": 40}
    assert not end.notes


def test_a_clump_of_rows_that_an_account_may_not_send_takes_no_endpoint_out() -> None:
    """The server refuses thirty rows in the middle of the input with 403, while one request is in flight at a time."""
    error = Refused("HTTP 403", status=403)
    work, end, _, _ = send(
        lambda request, endpoint, at: error if 100 <= request.row < 130 else None, 300, max_in_flight=1
    )
    assert ends(work) == {"ok": 270, "failed": 30}
    assert not end.notes


def test_a_key_that_is_refused_for_a_moment_costs_no_row() -> None:
    """The server returns 401 for 20 ms, as while a key is rotated; the dispatcher tries the refused rows once more."""
    error = Refused("HTTP 401", status=401)
    work, _, _, _ = send(lambda request, endpoint, at: error if 1.0 < at < 1.02 else None, 200)
    assert ends(work) == {"ok": 200}


def test_a_replica_that_does_not_know_the_key_costs_no_row() -> None:
    """One of four servers behind a URL returns 401. A refused key is never the row's fault, so rows are tried again."""
    error = Refused("HTTP 401", status=401)
    asked = iter(range(10**6))
    work, end, _, _ = send(lambda request, endpoint, at: error if next(asked) % 4 == 1 else None, 60)
    assert ends(work) == {"ok": 60}
    assert not end.notes


def test_credit_that_ends_before_the_last_rows_fails_none_of_them() -> None:
    """The server refuses the last three rows for a lack of credit; they stay unsent, and the note gives the reason."""
    error = AccountRefused("HTTP 400", status=400, code="invalid_request_error", words="credit balance is too low")
    work, end, _, _ = send(lambda request, endpoint, at: error if request.row >= 37 else None, 40, max_in_flight=1)
    assert ends(work) == {"ok": 37, "unsent": 3}
    assert any("credit balance" in note for note in end.notes)


def test_no_note_calls_an_endpoint_down_for_the_last_rows_that_it_may_not_answer() -> None:
    """The endpoint refuses five rows with 403, also when they are tried again at the end: they fail, without a note."""
    error = Refused("HTTP 403", status=403, code="guardrail_blocked")
    work, end, _, _ = send(lambda request, endpoint, at: error if request.row % 12 == 5 else None, 60, answer_seconds=0)
    assert ends(work) == {"ok": 55, "failed": 5}
    assert not end.notes


@pytest.mark.parametrize("share", [3, 10, 33])
def test_rows_that_always_fail_end_as_failed_and_do_not_hold_up_the_others(share: int) -> None:
    """3, 10 or 33 % of the rows always get a 500. They fail after `max_attempts`, within the time that back-off takes,
    and never put the endpoint into a cooldown.
    """

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        return ServerError("HTTP 500", status=500) if request.row % 100 < share else None

    work, end, seconds, sent = send(says, 200, answer_seconds=0.05)
    assert ends(work) == {"ok": 200 - 2 * share, "failed": 2 * share}
    assert max(sent.values()) == 6
    assert seconds < 120
    assert not end.stalled


def test_the_last_rows_that_always_fail_wait_for_no_cooldown() -> None:
    """The last three rows always get a 500; they fail within the time of their back-off."""
    work, _, seconds, _ = send(
        lambda request, endpoint, at: ServerError("x", status=500) if request.row >= 97 else None, answer_seconds=0.05
    )
    assert ends(work) == {"ok": 97, "failed": 3}
    assert seconds < 30


def test_attempts_of_earlier_sittings_count() -> None:
    """A row with five attempts in an earlier sitting has one attempt left."""
    history = History({}, sent={7: 5}, failures={7: (5, "server_error", 500)})
    work, _, _, sent = send(
        lambda request, endpoint, at: ServerError("x", status=500) if request.row == 7 else None, history=history
    )
    assert (sent[7], work.outcomes[7].status, work.outcomes[7].attempts) == (1, "failed", 6)


@pytest.mark.parametrize("retry_after", [None, 0.0, 1.0, 20.0])
def test_a_lone_row_that_is_always_throttled_fails_after_a_bound(retry_after: float | None) -> None:
    """The last row left is throttled at each attempt; it fails in less than 300 s, with the server's words."""

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        error = RateLimited("HTTP 429", status=429, retry_after=retry_after, words="too large")
        return error if request.row == 5 else None

    work, _, seconds, _ = send(says, 20, answer_seconds=0.05)
    assert ends(work) == {"ok": 19, "failed": 1}
    error = work.outcomes[5].error
    assert error is not None
    assert "too large" in error.message
    assert seconds < 300


def test_unreadable_first_answers_stop_the_lane_early() -> None:
    """Unreadable answers are billed, so the endpoint is out after fewer than 60 of them, and the note quotes one."""
    error = BadAnswer("the answer is not JSON", status=200, words="<html>Welcome to nginx")
    work, end, seconds, sent = send(lambda request, endpoint, at: error, 1000)
    assert "ok" not in ends(work)
    assert sum(sent.values()) < 60
    assert seconds < 120
    assert any("unreadable" in note and "nginx" in note for note in end.notes)


@pytest.mark.parametrize("rows", [3, 10])
def test_a_small_job_too_learns_soon_that_every_answer_is_unreadable(rows: int) -> None:
    """In a job of few rows repeated attempts of the same row count as evidence, so that rows need not wait for a
    cooldown before each of six attempts.
    """
    error = BadAnswer("an error in a 2xx answer", status=200, words="Unexpected endpoint or method")
    work, end, seconds, sent = send(lambda request, endpoint, at: error, rows)
    assert ends(work) == {"unsent": rows}
    assert sum(sent.values()) <= rows + 10
    assert seconds < 60
    assert any("Unexpected endpoint" in note for note in end.notes)


def test_a_wait_beyond_all_dates_is_said_as_any_other() -> None:
    """A `retry_after` of 1e300 seconds has no date; the run ends as for any other wait that is too long."""
    error = RateLimited("HTTP 429", status=429, retry_after=1e300)
    _, end, seconds, _ = send(lambda request, endpoint, at: error, 10)
    assert "asks to stay away" in end.stalled[0]
    assert "365 d" in end.stalled[0]
    assert seconds < 10


@pytest.mark.parametrize("rows", [1, 5])
def test_a_server_that_loads_its_model_costs_no_attempts(rows: int) -> None:
    """A server returns 503 for five minutes before its first answer; every row is answered in the end."""

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        return ServerError("HTTP 503", status=503, words="Loading model") if at < 300 else None

    work, _, seconds, _ = send(says, rows)
    assert ends(work) == {"ok": rows}
    assert seconds < 330


def test_a_wait_that_is_too_long_ends_the_run_and_says_until_when() -> None:
    """An endpoint asks for a pause of 55 hours, so the run ends; with `longest_wait` of three days the pool waits."""

    def says(request: Request, endpoint: EndpointSpec, at: float) -> DispatchError | None:
        error = RateLimited("HTTP 429", status=429, retry_after=198_300.0, words="weekly quota")
        return error if 3 < at < 198_300 else None

    work, end, seconds, _ = send(says, 400)
    assert seconds < 60
    assert "Sat 03 Jan 07:05 UTC (in 2 d 7 h)" in end.stalled[0]
    assert "weekly quota" in end.stalled[0]
    assert ends(work).keys() == {"ok"}

    _, end, _, _ = send(says, 400, spec=DispatchSpec.model_validate({"longest_wait": "3 d"}))
    assert not end.stalled


def test_an_endpoint_that_throttles_everybody_for_longer_than_one_waits_ends_the_run() -> None:
    """An endpoint only returns 429 without `retry-after`, and most rows were never tried: the run ends after
    `longest_wait`.
    """
    work, end, seconds, _ = send(
        lambda request, endpoint, at: RateLimited("HTTP 429", status=429, words="come back later"),
        10_000,
        spec=DispatchSpec.model_validate({"longest_wait": "90 min"}),
    )
    assert not work.outcomes
    assert 5400 <= seconds < 5400 + 120
    assert "come back later" in end.stalled[0]


def test_the_numbers_of_different_rows_are_few() -> None:
    """A user who reads the documentation expects about ten refused rows before an endpoint is out, not hundreds."""
    assert REFUSED_ROWS + PROBES <= BAD_ROWS + PROBES <= 15


def test_a_date_of_another_year_has_its_year() -> None:
    """`date` adds the year to a date of another year, and does not raise for a date that cannot be represented."""
    december = datetime(2026, 12, 31, 23, 50, tzinfo=UTC).timestamp()
    assert date(december + 300, december) == "Thu 31 Dec 23:55 UTC"
    assert date(december + 900, december) == "Fri 01 Jan 2027 00:05 UTC"
    assert date(1e30, december) == "after the year 9999"
