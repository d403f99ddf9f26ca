"""An endpoint's health goes through pauses, cooldowns and probes until it is up or out; the test moves the clock."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.dispatch.health import (
    COOLDOWN_SECONDS,
    FAILURES_IN_A_ROW,
    FIRST_COOLDOWN_SECONDS,
    FIRST_PAUSE_SECONDS,
    LONGEST_COOLDOWN_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MOMENT_SECONDS,
    SLOW_START_SECONDS,
    Health,
    State,
)
from batch.errors import (
    BadAnswer,
    BadRequest,
    ConnectionLost,
    DispatchError,
    NotConnected,
    RateLimited,
    Refused,
    ServerError,
    TimedOut,
)


class HandClock:
    """A clock that the test moves by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Patient:
    """The health of one endpoint, and its clock."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.health = Health(self.clock, Random(0))

    def fail(self, times: int, error: DispatchError | None = None) -> None:
        """Let this many attempts in a row fail with this error."""
        for _ in range(times):
            self.health.started()
            self.health.failed(error or ServerError("x"), self.clock.now)

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds


@pytest.mark.parametrize("kind", [ServerError, TimedOut, ConnectionLost, BadAnswer])
def test_five_failures_in_a_row_cool_it_down(kind: type[DispatchError]) -> None:
    """Four failures do not start a cooldown, and an answer in between restarts the count."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW - 1, kind("x"))
    assert patient.health.delay() == 0
    patient.health.answered()
    patient.fail(FAILURES_IN_A_ROW - 1, kind("x"))
    assert patient.health.delay() == 0
    patient.fail(1, kind("x"))
    assert (patient.health.state, patient.health.delay()) == (State.COOLING, FIRST_COOLDOWN_SECONDS)


def test_one_refused_connection_cools_it_down() -> None:
    """No server is there, so four more attempts would only cost time."""
    patient = Patient()
    patient.fail(1, NotConnected("x"))
    assert patient.health.state is State.COOLING


def test_a_cooldown_ends_with_a_single_probe() -> None:
    """After a cooldown a single request is sent; no other may be sent until its answer ends the cooldown."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    assert patient.health.delay() == 0
    patient.health.started()
    assert (patient.health.state, patient.health.delay()) == (State.PROBING, math.inf)
    patient.health.answered()
    assert (patient.health.state, patient.health.delay()) == (State.UP, 0)


def test_a_failed_probe_is_followed_by_a_longer_cooldown() -> None:
    """A single failed probe starts the next cooldown: a tenth of the absence, between ten seconds and a minute, so that
    ten seconds never see two probes. An answer brings the first, short cooldown back.
    """
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    assert patient.health.delay() == FIRST_COOLDOWN_SECONDS
    away = FIRST_COOLDOWN_SECONDS
    patient.pass_time(away)
    waits = []
    for _ in range(60):
        patient.fail(1)
        waits.append(patient.health.delay())
        assert waits[-1] == pytest.approx(min(LONGEST_COOLDOWN_SECONDS, max(COOLDOWN_SECONDS, away / 10)))
        away += waits[-1]
        patient.pass_time(waits[-1])
    assert (waits[0], waits[-1]) == (COOLDOWN_SECONDS, LONGEST_COOLDOWN_SECONDS)
    patient.health.started()
    patient.health.answered()
    patient.fail(FAILURES_IN_A_ROW)
    assert patient.health.delay() == FIRST_COOLDOWN_SECONDS


def test_an_endpoint_that_fails_most_of_the_time_cools_down_without_five_in_a_row() -> None:
    """An endpoint that fails three of four attempts cools down; one that fails every fifth attempt never does."""
    patient = Patient()
    for attempt in range(40):
        if attempt % 4:
            patient.fail(1)
        else:
            patient.health.answered()
        patient.pass_time(0.1)
        if patient.health.state is State.COOLING:
            break
    assert patient.health.state is State.COOLING
    well = Patient()
    for attempt in range(1000):
        if attempt % 5 == 0:
            well.fail(1)
        else:
            well.health.answered()
        well.pass_time(0.1)
        assert well.health.state is State.UP


def test_a_return_is_a_slow_start() -> None:
    """After a long absence an endpoint's requests in flight come back evenly over three seconds."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.pass_time(30)
    patient.health.started()
    patient.health.answered()
    assert patient.health.starting
    assert patient.health.slow_start_delay(0.5) == pytest.approx(SLOW_START_SECONDS / 2)
    assert patient.health.slow_start_delay(1.0) == pytest.approx(SLOW_START_SECONDS)
    patient.pass_time(SLOW_START_SECONDS / 2)
    assert patient.health.slow_start_delay(0.5) == pytest.approx(0.0)
    patient.pass_time(SLOW_START_SECONDS / 2)
    assert [patient.health.starting] == [False]
    assert patient.health.slow_start_delay(1.0) == pytest.approx(0.0)


def test_late_failures_do_not_lengthen_a_cooldown() -> None:
    """Failures of requests that were sent before the cooldown neither lengthen it nor end the probe after it."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    for _ in range(20):
        patient.health.failed(ServerError("x"), patient.clock.now - 0.1)
    assert patient.health.delay() == FIRST_COOLDOWN_SECONDS
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    patient.health.started()
    patient.health.failed(ServerError("x"), patient.clock.now - 60)
    assert patient.health.state is State.PROBING


def test_a_late_answer_ends_a_cooldown() -> None:
    """An answer during a cooldown shows that the endpoint is up."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.health.answered()
    assert patient.health.state is State.UP


def test_an_abandoned_probe_is_sent_again() -> None:
    """A cancelled probe is no evidence, so another one may be sent at once."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    patient.health.started()
    patient.health.abandoned()
    assert (patient.health.state, patient.health.delay()) == (State.COOLING, 0)


@given(st.lists(st.floats(1, 500), min_size=1, max_size=10))
def test_a_shorter_pause_never_shortens_a_longer_one(waits: list[float]) -> None:
    """Of several throttles at once, the one with the longest `retry-after` counts."""
    patient = Patient()
    for wait in waits:
        patient.health.failed(RateLimited("x", retry_after=wait), patient.clock.now)
    assert patient.health.delay() == pytest.approx(max(waits))


def test_a_pause_does_not_shorten_a_cooldown_nor_a_servers_own_wait() -> None:
    """The longest wait counts; here it is the `retry-after` of a 503, which is longer than the cooldown."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW - 1)
    patient.fail(1, ServerError("x", retry_after=90))
    patient.health.failed(RateLimited("x", retry_after=1), patient.clock.now)
    assert patient.health.delay() == 90


def test_a_refusal_without_a_time_pauses_longer_each_time() -> None:
    """The first pause is a moment, the second a quarter to half a second, and each further one in a row is twice as
    long, up to a minute. After an answer the pause is a moment again.
    """
    patient = Patient()
    full = MOMENT_SECONDS
    for _ in range(10):
        patient.fail(1, RateLimited("x"))
        wait = patient.health.delay()
        assert full / 2 <= wait <= full
        patient.pass_time(wait)
        full = min(2 * full, LONGEST_PAUSE_SECONDS) if full > MOMENT_SECONDS else FIRST_PAUSE_SECONDS
    patient.health.answered()
    patient.fail(1, RateLimited("x"))
    assert patient.health.delay() <= MOMENT_SECONDS


def test_a_retry_after_of_zero_still_pauses() -> None:
    """A `retry-after` of 0, as servers send that round down, is treated as none: the endpoint pauses for a moment."""
    patient = Patient()
    patient.fail(1, RateLimited("x", retry_after=0.0))
    assert patient.health.delay() >= MOMENT_SECONDS / 2


def test_refusals_of_one_round_trip_are_one_refusal() -> None:
    """Fifty throttles of requests that were in flight together do not add up to a pause of a minute."""
    patient = Patient()
    sent = patient.clock.now
    patient.pass_time(0.2)
    for _ in range(50):
        patient.health.failed(RateLimited("x"), sent)
    assert patient.health.delay() <= FIRST_PAUSE_SECONDS


def test_a_throttled_probe_shows_that_it_is_well() -> None:
    """A throttle is a response, so the endpoint is up, and only pauses for as long as it asks."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    patient.fail(1, RateLimited("x", retry_after=3))
    assert (patient.health.state, patient.health.delay(), patient.health.down_since) == (State.UP, 3, None)


def test_a_rows_own_fault_shows_that_it_is_well() -> None:
    """A 400 is a response, so it ends the cooldown and the count of failures."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    patient.fail(1, BadRequest("x"))
    assert (patient.health.state, patient.health.down_since) == (State.UP, None)


def test_out_is_for_good() -> None:
    """Neither time nor a late answer brings an endpoint back that is out, and its reason is kept."""
    patient = Patient()
    patient.health.out("HTTP 401")
    patient.pass_time(1e6)
    patient.health.answered()
    patient.health.failed(RateLimited("x", retry_after=0), 0.0)
    patient.health.failed(ServerError("x"), 0.0)
    assert (patient.health.state, patient.health.delay(), patient.health.reason) == (State.OUT, math.inf, "HTTP 401")


def test_unreadable_answers_are_failures_like_any_other() -> None:
    """Five unreadable answers, such as a maintenance page with status 200, start a cooldown like other failures."""
    patient = Patient()
    since = patient.clock.now
    patient.fail(FAILURES_IN_A_ROW, BadAnswer("x", status=200))
    assert (patient.health.state, patient.health.down_since) == (State.COOLING, since)


def test_an_answer_that_was_on_its_way_before_a_cooldown_does_not_end_it() -> None:
    """Neither does it reset the count of cooldowns: after the next failed probe comes the second, longer one."""
    patient = Patient()
    sent = patient.clock.now
    patient.pass_time(1)
    patient.fail(FAILURES_IN_A_ROW)
    patient.health.answered(sent)
    assert patient.health.delay() == FIRST_COOLDOWN_SECONDS
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    patient.fail(1)
    assert patient.health.delay() == COOLDOWN_SECONDS
    patient.pass_time(COOLDOWN_SECONDS)
    patient.health.started()
    patient.health.answered(patient.clock.now)
    assert patient.health.state is State.UP


def test_a_throttle_that_was_on_its_way_before_a_cooldown_does_not_end_it() -> None:
    """Neither the cooldown nor its probe ends by a 429 to an older request; the next cooldown is as long as it was."""
    patient = Patient()
    health, clock = patient.health, patient.clock
    before = clock.now
    patient.pass_time(1)
    patient.fail(FAILURES_IN_A_ROW)
    down = health.down_since
    health.failed(RateLimited("x"), before)
    assert (health.state, health.delay(), health.down_since) == (State.COOLING, FIRST_COOLDOWN_SECONDS, down)
    patient.pass_time(FIRST_COOLDOWN_SECONDS)
    health.started()
    health.failed(RateLimited("x", retry_after=30), before)
    assert (health.state, health.delay()) == (State.PROBING, math.inf)
    health.failed(ServerError("x"), clock.now)
    assert (health.state, health.delay()) == (State.COOLING, 30)


def test_a_doubted_endpoint_is_asked_one_row_at_a_time_until_it_answers() -> None:
    """After a refused probe the next may be sent at once; an answered probe ends the doubt, also after a throttle."""
    patient = Patient()
    patient.health.doubt("HTTP 403")
    for error in (Refused("HTTP 403", status=403), RateLimited("x", retry_after=3)):
        assert (patient.health.doubted, patient.health.delay()) == (True, 0)
        patient.health.started()
        assert patient.health.delay() == math.inf
        patient.health.failed(error, patient.clock.now)
    assert (patient.health.state, patient.health.delay()) == (State.COOLING, 3)
    patient.pass_time(3)
    patient.health.started()
    patient.health.answered(patient.clock.now)
    assert (patient.health.state, patient.health.doubted, patient.health.starting) == (State.UP, False, False)


def test_a_probe_with_a_row_that_fails_everywhere_is_no_evidence() -> None:
    """Such a probe is followed by another after the first, short cooldown, and the cooldowns do not grow."""
    patient = Patient()
    patient.fail(FAILURES_IN_A_ROW)
    for _ in range(3):
        patient.pass_time(FIRST_COOLDOWN_SECONDS)
        patient.health.started()
        patient.health.failed(ServerError("x", status=500), patient.clock.now, of_row=True)
        assert (patient.health.state, patient.health.delay()) == (State.COOLING, FIRST_COOLDOWN_SECONDS)


def test_down_since_is_the_first_failure_after_an_answer() -> None:
    """`down_since` is the time of the first failure since the last answer, not of the latest one."""
    patient = Patient()
    patient.fail(1)
    since = patient.clock.now
    patient.pass_time(5)
    patient.fail(3)
    assert patient.health.down_since == since
    patient.health.answered()
    assert patient.health.down_since is None
