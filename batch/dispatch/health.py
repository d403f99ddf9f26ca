"""Whether an endpoint should be asked at all."""

import math
from enum import Enum
from random import Random

from batch.clock import Clock
from batch.errors import DispatchError, NotConnected

# Envoy's outlier detection ejects after five failures in a row, and never for longer than five minutes.
FAILURES_IN_A_ROW = 5
FIRST_COOLDOWN_SECONDS = 2.0
LONGEST_COOLDOWN_SECONDS = 300.0

# A 429 that does not say how long: the wait doubles from here with each refusal in a row.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


class State(Enum):
    """Where an endpoint stands."""

    UP = "up"
    COOLING = "cooling"
    PROBING = "probing"
    OUT = "out"


class Health:
    """Pauses, cooldowns and the end of one endpoint.

    A *pause* is what the server asked for (429): the endpoint is well. A *cooldown* follows failures, grows with
    repetition, and ends with a single probe whose outcome decides. *Out* is for the whole run.
    """

    def __init__(self, clock: Clock, random: Random) -> None:
        self.state = State.UP
        self.reason = ""
        self._clock = clock
        self._random = random
        self._until = -math.inf
        self._failures = 0
        self._cooldowns = 0
        self._throttles = 0
        self.down_since: float | None = None

    def delay(self) -> float:
        """Seconds until a request may be sent; infinity while a probe is out, or for good."""
        if self.state is State.UP or self.state is State.COOLING:
            return max(0.0, self._until - self._clock())
        return math.inf

    def started(self) -> None:
        """A request was sent: the first one after a cooldown is its probe."""
        if self.state is State.COOLING:
            self.state = State.PROBING

    def answered(self) -> None:
        """A good answer, or one that shows the endpoint is well."""
        if self.state is not State.OUT:
            self.state = State.UP
        self._failures = self._cooldowns = self._throttles = 0
        self.down_since = None

    def failed(self, error: DispatchError) -> None:
        """An attempt ended in an error."""
        match error.blame:
            case "row":
                self.answered()
            case "throttle":
                self._throttle(error)
            case "gone":
                self.state = State.OUT
                self.reason = str(error)
            case "endpoint":
                self._count(error)

    def abandoned(self) -> None:
        """An attempt was cancelled and says nothing; a probe must be sent again."""
        if self.state is State.PROBING:
            self.state = State.COOLING

    def _throttle(self, error: DispatchError) -> None:
        if self.state is State.PROBING:
            self.state = State.UP
        self._failures = 0
        self.down_since = None
        wait = error.retry_after
        if wait is None:
            full = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._throttles)
            wait = full * self._random.uniform(0.5, 1.0)
            self._throttles = min(self._throttles + 1, 10)
        # A later, shorter pause never shortens an earlier one.
        self._until = max(self._until, self._clock() + wait)

    def _count(self, error: DispatchError) -> None:
        self._failures += 1
        if self.down_since is None:
            self.down_since = self._clock()
        if error.retry_after is not None:
            self._until = max(self._until, self._clock() + error.retry_after)
        unreachable = isinstance(error, NotConnected)
        if self.state is State.PROBING or (
            self.state is State.UP and (unreachable or self._failures >= FAILURES_IN_A_ROW)
        ):
            wait = min(LONGEST_COOLDOWN_SECONDS, FIRST_COOLDOWN_SECONDS * 2**self._cooldowns)
            self._cooldowns = min(self._cooldowns + 1, 16)
            self._until = max(self._until, self._clock() + wait)
            self.state = State.COOLING
