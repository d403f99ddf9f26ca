"""Finds, from a server's refusals, how many requests per second it lets through."""

import logging
import math
from collections import deque

from batch.clock import Clock
from batch.dispatch.limits.refusal_share import RefusalShare
from batch.dispatch.limits.requests import ROUNDING_SECONDS
from batch.dispatch.request import LimitCost

_log = logging.getLogger("batchrouter.dispatch.limits")

# A refusal lowers the rate to this share of what the server accepted.
_DECREASE = 0.95
# CUBIC's curve comes back to the accepted rate in the time of `_RETURN_REQUESTS` requests, stays about there, and is 5
# % above it after twice and 40 % after three times as long. With a longer time there are fewer refusals; with a shorter
# one a wrong rate is noticed sooner. The first estimates are the worst, so they are revised soonest.
_RETURN_REQUESTS = 60
_FIRST_RETURN_SECONDS = 2.0
_RETURN_GROWTH = 1.5
_SHORTEST_RETURN_SECONDS = 6.0
_LONGEST_RETURN_SECONDS = 30.0
# One refusal lowers a rate that held requests back to no less than `_LEAST_KEPT` of it: after a pause little was
# accepted, which says nothing about the limit. A rate held requests back if it is at most `_HELD` times what was sent.
_LEAST_KEPT = 0.7
_HELD = 3.0
# The first refusal lowers the rate to no less than this many requests per second: if only a few were sent before it,
# their number says little, and a rate that is too high is noticed within a few refusals.
_LEAST_FIRST = 4.0

# If limits are configured, `_CHANCES` refusals within `_CHANCE_SECONDS` are ignored, or `_CHANCE_SHARE` of the
# requests.
_CHANCES = 3
_CHANCE_SHARE = 0.02
_CHANCE_SECONDS = 60.0

# Accepted requests are counted over `_COUNTED_SECONDS`, or longer if these hold fewer than `_COUNTED_REQUESTS`.
_COUNTED_SECONDS = 2.0
_COUNTED_REQUESTS = 10
_LONGEST_COUNTED_SECONDS = 15.0

# This much of the rate may be caught up after a late timer. No more, since servers that allow no burst would refuse it.
_CATCH_UP_SECONDS = 0.01


class AdaptiveRate:
    """Limits requests per second where no limit is configured: no request is held back until the server refuses one.

    From then on the rate follows CUBIC (RFC 9438): it starts a twentieth below what the server accepted, comes back
    there within seconds, rests for a while, and then grows faster and faster, so that a server that allows more, or an
    estimate that was too low, is noticed. If the server refuses at every rate alike, `RefusalShare` decides instead.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        known: float | None = None,
        patient: bool = False,
        configured: float | None = None,
        name: str = "",
    ) -> None:
        """
        Args:
            known: requests per minute that an earlier run found.
            patient: are there limits that keep requests within what the server is known to allow? Then a refusal now
                and then is chance, and only several within a minute show that the server allows less.
            configured: requests per minute that the job file states; the first refusal keeps at least `_LEAST_KEPT` of
                them.
            name: of the endpoint, for the log.
        """
        self._name = name
        self._chances = _CHANCES if patient else 0
        self._by_chance: deque[float] = deque()
        self._least = _LEAST_KEPT * (configured or 0.0) / 60
        self._clock = clock
        self._accepted = math.inf if known is None else known / 60
        self._lowered_at = -math.inf if known is None else clock() - _LONGEST_RETURN_SECONDS
        self._return_seconds = _FIRST_RETURN_SECONDS if known is None else _LONGEST_RETURN_SECONDS
        self._next = clock()
        self._started: deque[float] = deque()
        self._refused: deque[float] = deque()
        self._share = RefusalShare()

    @property
    def found(self) -> float | None:
        """Requests per minute, to store for the next run; `None` while nothing was refused."""
        return None if self._accepted == math.inf else self._accepted * 60

    @property
    def rate(self) -> float:
        """Requests per second that may be sent now; infinity: any number."""
        if self._accepted == math.inf:
            return math.inf
        if self._share.pace is not None:
            return self._share.pace
        ahead = (self._clock() - self._lowered_at) / self._return_seconds - 1
        return self._accepted * (1 + (1 - _DECREASE) * ahead**3)

    @property
    def ignores_refusals(self) -> bool:
        """Does the server seem to refuse a share of the requests at any rate, so that refusals lower nothing?"""
        return self._share.pace is not None

    @property
    def holds(self) -> bool:
        """Does it hold any request back?"""
        return self._accepted < math.inf

    def delay(self, cost: LimitCost) -> float:
        rate = self.rate
        if rate == math.inf:
            return 0.0
        wait = self._next - self._tolerance(rate) - self._clock()
        return wait if wait > ROUNDING_SECONDS else 0.0

    def take(self, cost: LimitCost) -> None:
        now = self._clock()
        if self.holds:
            rate = self.rate
            self._next = max(now, self._next) + cost.requests / rate
            held = self._share.sent(now)
            if held is not None:
                self._accepted, self._lowered_at = held, now - self._return_seconds
        started = self._started
        started.append(now)
        while started[0] < now - _COUNTED_SECONDS and len(started) > _COUNTED_REQUESTS:
            started.popleft()

    def refused(self, started: float, *, explained: bool = False) -> None:
        """The server refused an attempt that started at `started`: it does not count as accepted, and lowers the rate.

        The rate is lowered once per round trip: a request from before the last decrease says nothing about the new
        rate.

        Args:
            explained: does another limit explain the refusal, so that the rate stays as it is?
        """
        if explained and self._share.pace is None:
            self._share.count_refused(started, self._clock())
            return
        self._refused.append(started)
        now = self._clock()
        rate = self.rate
        measured = self._measured()
        held = rate <= self._went_out(now) * _HELD
        share = self._share
        if share.pace is not None:
            given_up = share.refused(started, now, binding=held)
            if given_up is None:
                return
            rate = given_up
        elif (
            started < self._lowered_at
            or self._is_chance(started)
            or share.suspects(started, rate, now, explained=rate >= self._accepted, binding=held)
        ):
            return
        if rate == math.inf:
            least = max(self._least, _LEAST_FIRST)
        else:
            least = max(rate * _LEAST_KEPT, share.floor(rate)) if held else 0.0
        self._accepted = max(measured, least)
        longest = max(_SHORTEST_RETURN_SECONDS, min(_LONGEST_RETURN_SECONDS, _RETURN_REQUESTS / self._accepted))
        if self._lowered_at > -math.inf:
            self._return_seconds = min(longest, self._return_seconds * _RETURN_GROWTH)
        self._lowered_at = now
        self._next = max(self._next, now + 1 / self.rate)
        _log.debug("%s lets %.0f requests per minute through", self._name, self._accepted * 60)

    def _is_chance(self, started: float) -> bool:
        """May this refusal be ignored as chance? All refusals of one round trip count as one."""
        if self._accepted < math.inf or not self._chances:
            return False
        now = self._clock()
        chances = self._by_chance
        while chances and chances[0] < now - _CHANCE_SECONDS:
            chances.popleft()
        if chances and started < chances[-1]:
            return True
        chances.append(now)
        return len(chances) <= max(self._chances, _CHANCE_SHARE * self._measured() * _CHANCE_SECONDS)

    def _measured(self) -> float:
        """Requests accepted per second lately; never zero."""
        now = self._clock()
        first = self._started[0] if self._started else now
        seconds = min(_LONGEST_COUNTED_SECONDS, max(_COUNTED_SECONDS, now - first))
        while self._refused and self._refused[0] < now - seconds:
            self._refused.popleft()
        started = sum(1 for at in self._started if at >= now - seconds)
        return max(0.5, started - len(self._refused)) / seconds

    def _went_out(self, now: float) -> float:
        """Requests sent per second lately."""
        started = self._started
        if not started:
            return 0.0
        seconds = min(_LONGEST_COUNTED_SECONDS, max(now - started[0], 1e-3))
        return sum(1 for at in started if at >= now - seconds) / seconds

    def _tolerance(self, rate: float) -> float:
        return math.floor(rate * _CATCH_UP_SECONDS) / rate
