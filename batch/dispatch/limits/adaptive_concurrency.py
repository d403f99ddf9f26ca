"""Finds, while a run goes on, how many requests in flight a server handles best."""

import logging
import math
from enum import Enum

from batch.dispatch.limits.requests import InFlight
from batch.dispatch.limits.throughput_windows import DECREASE, CapacityHistory, ThroughputWindow

_log = logging.getLogger("batchrouter.dispatch.limits")

# Any server handles this many. From here the number doubles per round trip.
START = 8
# Doubling goes on while each request keeps this share of its speed. After that, each step is measured once it has
# settled.
_KEPT_SPEED = 0.8
_LEAST_TO_DOUBLE = 8

# Steps of the search ("rungs") by these factors, far from the best number and near it. A step up is worth it if the
# logarithm of throughput grows by more than `_WORTH` of the logarithm of concurrency: a server that queues is held near
# the fewest requests that keep it busy, and one whose throughput follows c / (c + k) at 0.95 of its maximum.
_FAR_RUNG = 2.0
_NEAR_RUNG = 1.25
_WORTH = 0.05
# Each additional request in flight is work that was begun and is not finished. The gain in throughput must make up for
# it within this many seconds, or slow answers would get much slower for a few per cent.
_REPAID_SECONDS = 600.0
# A trial that changed throughput by this factor was far from the best number.
_FAR_GAIN = 1.12

# A measurement ends once the standard error of its throughput is below `_PRECISION`, or after `_MOST_ROUND_TRIPS`.
_PRECISION = 0.02
_LEAST_ANSWERS = 16
_LEAST_ROUND_TRIPS = 0.25
_MOST_ROUND_TRIPS = 2.0
# A trial with more requests is given up early, after at least `_LEAST_TO_REJECT` answers, if its throughput is clearly
# below `_CLEARLY_WORSE` of the present one.
_LEAST_TO_REJECT = 8
_CLEARLY_WORSE = 0.95
# The number that was clearly too many is raised by `_FORGETTING` per measurement. Steps below `_LEAST_STEP` change too
# little to be measured.
_FORGETTING = 1.02
_LEAST_STEP = 0.08
# The most measurements between two trials in one direction. Their number doubles with each trial that failed: near a
# server's best, a trial with fewer requests costs a fifth of the throughput.
_MOST_EPOCHS_BETWEEN = 32
# If throughput at an unchanged number moves by this share, the server has changed, and earlier trials no longer count.
_DRIFT = 0.15
# Weight of a new measurement in the mean of its number.
_NEW_EPOCH = 0.5

# Share of a measurement's answers that came while all slots were taken. From `_BINDING` on, this limit is what holds
# requests back; below `_NEVER_BINDING` it never does.
_BINDING = 0.8
_NEVER_BINDING = 0.05

# After a refusal the number grows back by this share per round trip, at least by one.
_RECOVERY = 0.01


class _Phase(Enum):
    DOUBLING = "doubling"
    RECOVERING = "recovering"
    HOLDING = "holding"
    TRYING = "trying"


class AdaptiveConcurrency(InFlight):
    """Limits the requests in flight where no number is configured: a drop-in for `Concurrency` that searches for it.

    The search starts low and doubles per round trip while each request keeps its speed. After that it goes in steps: it
    measures the throughput at the present number, tries a higher or lower one now and then, and moves there if the
    trial was worth it, so that it follows a server that changes. A refusal lowers the number gently, and the refused
    number is not tried again for a while that grows with repetition. While fewer requests are in flight than allowed,
    another limit holds them back, and nothing is learned.

    It has no clock: times are monotonic seconds, given with each call. Call `refused` while the attempt still counts as
    in flight, `answered` after `release`.
    """

    def __init__(self, ceiling: int, known: int | None = None, name: str = "") -> None:
        """
        Args:
            ceiling: the most requests that are ever allowed.
            known: the number that an earlier run found; the search starts there.
            name: of the endpoint, for the log.
        """
        self._base = float(max(1, min(ceiling, START if known is None else known)))
        super().__init__(ceiling, self._base)
        self._name = name
        self._phase = _Phase.DOUBLING if known is None else _Phase.HOLDING
        self._epoch = ThroughputWindow()
        self._speed: float | None = None
        self._target = self._base
        self._settling = 0.0
        self._reached_at = -math.inf
        self._too_many = math.inf
        self._mean: float | None = None
        self._rung = {_UP: _FAR_RUNG, _DOWN: _NEAR_RUNG}
        self._wait = {_UP: 1, _DOWN: 1}
        self._waited = {_UP: 0, _DOWN: 0}
        self._refusals = CapacityHistory()
        self._logged = 0

    @property
    def found(self) -> int | None:
        """The number to store for the next run; `None` while still doubling."""
        return None if self._phase is _Phase.DOUBLING else int(self._base)

    def answered(self, tokens: int, started: float, now: float) -> None:
        """An attempt that started at `started` brought a good answer of `tokens` tokens."""
        level = self.in_flight + 1
        full = level >= int(self.allowed)
        refusals = self._refusals
        refusals.answered(level, started, now)
        if refusals.disproved:
            self._reopen()
        elif full and refusals.may_try(now) and self._phase is not _Phase.TRYING:
            self._probe()
        match self._phase:
            case _Phase.RECOVERING:
                self._recover(full=full)
            case _Phase.DOUBLING:
                self._epoch.add(tokens, now - started, level, full=full)
                self._double(now, full=full)
            case _Phase.HOLDING | _Phase.TRYING:
                settled = self._settled(level, started, now)
                if settled or self._rising:
                    self._epoch.add(tokens, now - started, level, full=full)
                if settled and self._known_well():
                    self._measured(now)
                elif self._rising and self._clearly_worse():
                    self._too_many = self._target
                    self._turn_down()

    def refused(self, started: float, now: float) -> bool:
        """The server refused an attempt, to slow us down. The number is lowered at most once per round trip.

        Returns:
            Whether this limit explains the refusal: the same number was refused before and was only tried again, so
            that no other limit need be lowered.
        """
        level = self.in_flight
        refusals = self._refusals
        if not refusals.counts(level):
            return False
        explained = level >= refusals.level
        if started < refusals.lowered_at:
            # The attempt was sent before the last decrease: its refusal only says that it was one too many itself.
            self.allowed = max(1.0, min(self.allowed, level - 1.0))
        else:
            self.allowed = max(1.0, min(self.allowed, float(level)) * DECREASE)
            refusals.close(level, now)
        refusals.level = float(level)
        self._base = max(1.0, level - 1.0)
        self._mean = None
        # A server that refuses does not queue, so a trial with fewer requests would gain nothing.
        self._wait[_DOWN] = _MOST_EPOCHS_BETWEEN
        self._rung[_UP] = _NEAR_RUNG
        self._phase = _Phase.RECOVERING
        return explained

    def _reopen(self) -> None:
        """The refusal came from another limit: search on as before it."""
        self._refusals.forget()
        self._phase = _Phase.DOUBLING
        self._base = self.allowed
        self._speed = None
        self._epoch = ThroughputWindow()

    def _probe(self) -> None:
        """The refused number was left alone for long enough: allow it again until it is refused or answered."""
        self._refusals.try_again()
        self.allowed = min(float(self.ceiling), self._refusals.level)
        self._hold(self.allowed)

    def _top(self, now: float) -> float:
        """The highest number that may be tried now."""
        return min(float(self.ceiling), self._refusals.most(now))

    def _double(self, now: float, *, full: bool) -> None:
        """Allow one more per answer, which doubles the number per round trip."""
        if full:
            self.allowed = min(2 * self._base, self._top(now), self.allowed + 1)
        epoch = self._epoch
        if epoch.answers < max(_LEAST_TO_DOUBLE, self._base):
            return
        self._epoch = ThroughputWindow()
        if epoch.full < _BINDING:
            # Another limit holds requests back; raise this one until it never does.
            if epoch.full > _NEVER_BINDING:
                self._base = self.allowed
            return
        before, self._speed = self._speed, epoch.speed
        if before is not None and epoch.speed < before * _KEPT_SPEED:
            # These requests were sent a round trip ago, before the last doubling, and were slower already.
            self._hold(self._base)
        elif self.allowed == self._base:
            # The highest number is reached.
            self._hold(self._base)
        else:
            self._base = self.allowed

    def _recover(self, *, full: bool) -> None:
        """Go slowly back to just below the refused number."""
        if full:
            self.allowed = min(self._base, self.allowed + max(1.0, self.allowed * _RECOVERY) / self.allowed)
        if self.allowed >= self._base:
            self._hold(self._base)

    def _hold(self, base: float) -> None:
        if int(base) != self._logged:
            self._logged = int(base)
            _log.debug("%s bears %d requests at once", self._name, self._logged)
        self._base = base
        self._aim(base, _Phase.HOLDING)

    def _aim(self, target: float, phase: _Phase) -> None:
        self._phase = phase
        self._epoch = ThroughputWindow()
        if self.allowed != target:
            self._settling = target
        self._target = target
        self.allowed = min(self.allowed, target)

    def _settled(self, level: int, started: float, now: float) -> bool:
        """Was this answer's request sent at the target number? The number moves there by one per answer; then a round
        trip must pass.
        """
        if self.allowed < self._target:
            self.allowed = min(self._target, self.allowed + 1)
            self._reached_at = now
        elif self._settling > 0:
            if level > self.allowed:
                self._reached_at = now
            else:
                self._settling -= 1
                if self._settling <= 0:
                    self._epoch = ThroughputWindow()
        else:
            return started >= self._reached_at
        return False

    def _known_well(self) -> bool:
        answers = self._epoch.answers
        # A measurement that only repeats a known one is not urgent: between trials it lasts a whole round trip.
        hurried = self._phase is _Phase.TRYING or self._mean is None
        if answers < max(_LEAST_ANSWERS, self._target * (_LEAST_ROUND_TRIPS if hurried else 1.0)):
            return False
        return self._epoch.error <= _PRECISION or answers >= self._target * _MOST_ROUND_TRIPS + _LEAST_ANSWERS

    @property
    def _rising(self) -> bool:
        """Is a trial with more requests going on?"""
        return self._phase is _Phase.TRYING and self._target > self._base

    def _clearly_worse(self) -> bool:
        """Is the trial clearly worse already? Answers to earlier requests only make it look better than it is."""
        epoch = self._epoch
        if self._mean is None or epoch.answers < _LEAST_TO_REJECT:
            return False
        return epoch.throughput * (1 + 2 * epoch.error) < self._mean * _CLEARLY_WORSE

    def _measured(self, now: float) -> None:
        """A measurement is complete: decide what to do next."""
        epoch = self._epoch
        if epoch.full < _BINDING:
            # Another limit holds requests back; raise this one until it never does.
            if epoch.full > _NEVER_BINDING:
                self._base = max(self._base, min(self._top(now), self._base + max(1.0, self._base * _RECOVERY)))
            self._hold(self._base)
        elif self._phase is _Phase.TRYING:
            self._weigh(epoch, now)
        else:
            self._follow(epoch.throughput)
            self._choose(now)

    def _follow(self, throughput: float) -> None:
        """Update the mean throughput at the present number."""
        if self._mean is None:
            self._mean = throughput
        elif abs(throughput / self._mean - 1) > _DRIFT:
            self._mean = throughput
            self._wait = {_UP: 1, _DOWN: 1}
            self._too_many = math.inf
        else:
            self._mean += (throughput - self._mean) * _NEW_EPOCH

    def _choose(self, now: float) -> None:
        """Measure the present number once more, or start a trial with a higher or lower one."""
        base = self._base
        self._too_many *= _FORGETTING
        # Trials go at most halfway to the number that was clearly too many, so that they cost less.
        halfway = math.sqrt(base * self._too_many)
        above = min(max(base * self._rung[_UP], base + 1), self._top(now), halfway)
        below = max(min(base / self._rung[_DOWN], base - 1), 1.0)
        for direction, target in ((_UP, above), (_DOWN, below)):
            self._waited[direction] += 1
            far_enough = (target - base) * direction >= max(1.0, base * _LEAST_STEP)
            if far_enough and self._waited[direction] >= self._wait[direction]:
                self._waited[direction] = 0
                self._aim(target, _Phase.TRYING)
                return
        self._hold(base)

    def _weigh(self, epoch: ThroughputWindow, now: float) -> None:
        """A trial is complete: keep its number or go back."""
        assert self._mean is not None
        direction = _UP if self._target > self._base else _DOWN
        gain = epoch.throughput / self._mean
        ratio = self._target / self._base
        worth, repaid = ratio**_WORTH, 1 + (ratio - 1) * epoch.latency / _REPAID_SECONDS
        if gain * (1 - epoch.error) <= (max(worth, repaid) if direction is _UP else min(worth, repaid)):
            self._turn_down()
            return
        self._wait[direction] = 1
        self._rung[direction] = _FAR_RUNG if gain > _FAR_GAIN else _NEAR_RUNG
        self._mean = epoch.throughput
        self._base = self._target
        self._choose(now)

    def _turn_down(self) -> None:
        """A trial was not worth it: go back, and wait longer before the next one in that direction."""
        direction = _UP if self._target > self._base else _DOWN
        self._rung[direction] = _NEAR_RUNG
        self._wait[direction] = min(_MOST_EPOCHS_BETWEEN, self._wait[direction] * 2)
        self._hold(self._base)


_UP, _DOWN = 1, -1
