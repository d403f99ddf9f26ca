"""An endpoint's health: whether, and when, requests may be sent to it."""

import logging
import math
from enum import Enum
from random import Random

from batch.clock import Clock
from batch.errors import DispatchError, NotConnected

_log = logging.getLogger("batchrouter.dispatch.health")

# Envoy's outlier detection ejects after five failures in a row.
FAILURES_IN_A_ROW = 5
# If failures and answers alternate, an endpoint is ejected when this share of at least `_SHARE_ENDS` attempts, weighted
# towards the last `_SHARE_SECONDS`, has failed.
FAILURE_SHARE = 0.6
_SHARE_ENDS = 20
_SHARE_SECONDS = 15.0
_FORGOTTEN = 0.01

# If one request in five fails, five in a row fail by chance once in 3,000 requests, so the first cooldown is short. If
# its probe fails too, the next cooldown is a tenth of the time that the endpoint has been away, at most a minute: a
# return is noticed soon, and an endpoint that stays away for hours is probed once a minute.
FIRST_COOLDOWN_SECONDS = 1.0
COOLDOWN_SECONDS = 10.0
LONGEST_COOLDOWN_SECONDS = 60.0
_SHARE_OF_ABSENCE = 0.1

# After a cooldown, the number of requests that an endpoint may have in flight grows evenly back over this time.
SLOW_START_SECONDS = 3.0

# Pauses after a 429 that does not say for how long. If requests are answered in between, the lowered pace does the work
# and a moment is enough; if one 429 follows another, the pause doubles, starting from `FIRST_PAUSE_SECONDS`.
MOMENT_SECONDS = 0.05
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60.0


class State(Enum):
    """The state of an endpoint.

    UP: requests may be sent. COOLING: a cooldown runs, or has run and its probe is not sent yet. PROBING: the one
    request that ends a cooldown or a doubt is in flight. OUT: nothing is sent for the rest of the run.
    """

    UP = "up"
    COOLING = "cooling"
    PROBING = "probing"
    OUT = "out"


class Health:
    """Pauses, cooldowns and the end of one endpoint.

    A *pause* follows a 429: the endpoint is healthy and asked for time. A *cooldown* follows failures and grows with
    repetition. It ends with a single request, the probe: if that is answered, the endpoint is up again and starts
    slowly, else the next cooldown begins. *Doubt* follows refusals of many different rows: from then on one request is
    sent at a time, without a cooldown. *Out* lasts for the rest of the run.
    """

    def __init__(self, clock: Clock, random: Random, name: str = "") -> None:
        """
        Args:
            name: of the endpoint, for the log.
        """
        self.state = State.UP
        self._name = name
        self._why: object = ""
        self._clock = clock
        self._random = random
        self._until = -math.inf
        self._failures = 0
        self._cooldowns = 0
        self._throttles = 0
        self._paused_at = self._probed_at = self._returned_at = -math.inf
        self._start_seconds = 0.0
        self._bad = self._ends = 0.0
        self._ended_at = clock()
        self._cooled_at = -math.inf
        self.down_since: float | None = None
        self.doubted = False
        """Has it refused so many different rows alike that it is sent only one request at a time?"""

    @property
    def reason(self) -> str:
        """Why it is out, in a cooldown or paused: its last error, with the server's own words."""
        return str(self._why)

    def delay(self) -> float:
        """Seconds until a request may be sent; infinity while a probe is in flight, and once the endpoint is out."""
        if self.state is State.UP or self.state is State.COOLING:
            return max(0.0, self._until - self._clock())
        return math.inf

    def started(self) -> None:
        """A request was sent. The first one after a cooldown is its probe."""
        if self.state is State.COOLING:
            self.state = State.PROBING
            self._probed_at = self._clock()

    @property
    def never_waited(self) -> bool:
        """Is it up, and has it never paused or cooled down? Then `delay` is 0.0 and need not be computed."""
        return self._until == -math.inf and self.state is State.UP

    @property
    def starting(self) -> bool:
        """Is it in the slow start that follows a cooldown?"""
        return self._clock() - self._returned_at < self._start_seconds

    def slow_start_delay(self, share: float) -> float:
        """Seconds until the slow start allows this share of the requests that it may have in flight."""
        return max(0.0, self._returned_at + self._start_seconds * min(1.0, share) - self._clock())

    def answered(self, started: float = math.inf) -> None:
        """An attempt that started at `started` was answered well, or refused, which shows the endpoint is reachable.

        Ignored during a cooldown if the attempt started before it: such an answer says nothing about the present.
        """
        if self.state is State.OUT:
            return
        if self.state is not State.UP:
            if started < self._cooled_at:
                return
            self._return()
        if self.down_since is not None or self._throttles or self._bad:
            self._failures = self._cooldowns = self._throttles = 0
            self.down_since = None
            self._count(0.0)

    def failed(self, error: DispatchError, started: float, *, of_row: bool = False) -> None:
        """An attempt that started at `started` ended in an error.

        Args:
            of_row: the row is to blame, so the failure says nothing about the endpoint (see `judging.failures`).
        """
        if self.state is State.OUT:
            return
        match error.blame:
            case "row" | "gone":
                self._refused(started)
            case "throttle":
                self._throttle(error, started)
            case "endpoint" if of_row:
                self._fail_of_row(error, started)
            case "endpoint":
                self._fail(error, started)

    def forget_throttles(self) -> None:
        """Reset the doubling of pauses: the next 429 that does not say for how long causes only a momentary pause."""
        self._throttles = 0

    def doubt(self, reason: str) -> None:
        """Allow only one request at a time from now on, until one is answered or `out` is called."""
        self.doubted = True
        self._why = reason
        if self.state is State.UP:
            self.state = State.COOLING
            self._cooled_at = self._clock()

    def out(self, reason: str) -> None:
        """Allow no request for the rest of the run."""
        self.state = State.OUT
        self._why = reason

    def abandoned(self) -> None:
        """An attempt was cancelled, which says nothing; if it was the probe, another one must be sent."""
        if self.state is State.PROBING:
            self.state = State.COOLING

    def _refused(self, started: float) -> None:
        """The endpoint refused a request, so it is reachable and not down.

        `Refusals` decides whether it is of any use.
        """
        if not self.doubted:
            self.answered(started)
        elif self.state is State.PROBING and started >= self._probed_at:
            self.state = State.COOLING

    def _return(self) -> None:
        self.state = State.UP
        self.doubted = False
        self._returned_at = self._clock()
        away = self._returned_at - (self.down_since if self.down_since is not None else self._returned_at)
        self._start_seconds = min(SLOW_START_SECONDS, away)
        self._bad = self._ends = 0.0
        _log.info("%s answers again after %.1f s", self._name, away)

    def _throttle(self, error: DispatchError, started: float) -> None:
        now = self._clock()
        if self.state is not State.UP and started < self._cooled_at:
            # Sent before the cooldown began, so it says nothing of the present; a time that it states counts.
            self._until = max(self._until, now + (error.retry_after or 0.0))
            return
        if self.state is State.PROBING:
            self.state = State.COOLING if self.doubted else State.UP
        self._failures = 0
        self.down_since = None
        wait = error.retry_after
        # Servers that round down send a zero, which does not mean that a request may follow at once.
        if not wait:
            if started < self._paused_at:
                # It was already in flight when the pause began, so its refusal says nothing new.
                return
            full = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (self._throttles - 1))
            wait = (full if self._throttles else MOMENT_SECONDS) * self._random.uniform(0.5, 1.0)
            self._throttles = min(self._throttles + 1, 10)
        self._paused_at = now
        self._why = error
        _log.debug("%s pauses for %.2f s: %s, HTTP %s", self._name, wait, error.kind, error.status)
        # A later, shorter pause never shortens the present one.
        self._until = max(self._until, now + wait)

    def _fail_of_row(self, error: DispatchError, started: float) -> None:
        """The row fails at every endpoint. If it was the probe, that says nothing: probe with another row soon."""
        now = self._clock()
        if error.retry_after is not None:
            self._until = max(self._until, now + error.retry_after)
        if self.state is State.PROBING and started >= self._probed_at:
            self.state = State.COOLING
            self._until = max(self._until, now + FIRST_COOLDOWN_SECONDS)

    def _fail(self, error: DispatchError, started: float) -> None:
        now = self._clock()
        self._why = error
        self._failures += 1
        self._count(1.0)
        if self.down_since is None:
            self.down_since = now
        if error.retry_after is not None:
            self._until = max(self._until, now + error.retry_after)
        failed_probe = self.state is State.PROBING and started >= self._probed_at
        unreachable = isinstance(error, NotConnected)
        if failed_probe or (self.state is State.UP and (unreachable or self._too_many())):
            self._cool(now)
            _log.info(
                "%s is cooling down for %.1f s: %s, HTTP %s", self._name, self._until - now, error.kind, error.status
            )

    def _too_many(self) -> bool:
        often = self._ends >= _SHARE_ENDS and self._bad >= FAILURE_SHARE * self._ends
        return often or self._failures >= FAILURES_IN_A_ROW

    def _cool(self, now: float) -> None:
        if self._cooldowns:
            away = now - (self.down_since if self.down_since is not None else now)
            wait = min(LONGEST_COOLDOWN_SECONDS, max(COOLDOWN_SECONDS, away * _SHARE_OF_ABSENCE))
        else:
            wait = FIRST_COOLDOWN_SECONDS
        self._cooldowns += 1
        self._until = max(self._until, now + wait)
        self._cooled_at = now
        self.state = State.COOLING

    def _count(self, bad: float) -> None:
        """Add the end of an attempt to the decayed counts.

        Counting begins with a failure and stops once that has decayed.
        """
        now = self._clock()
        kept = math.exp((self._ended_at - now) / _SHARE_SECONDS)
        self._ended_at = now
        self._ends = self._ends * kept + 1
        self._bad = self._bad * kept + bad
        if self._bad < _FORGOTTEN:
            self._bad = self._ends = 0.0
