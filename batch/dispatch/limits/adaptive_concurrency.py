"""How many requests a server bears at once, found while it works."""

import logging
import math
from enum import Enum

from batch.dispatch.limits.requests import InFlight
from batch.dispatch.limits.throughput_windows import DECREASE, CapacityHistory, ThroughputWindow

_log = logging.getLogger("batchrouter.dispatch.limits")

# What any server bears; from here the number doubles per round trip.
START = 8
# Doubling goes on while each request keeps this share of its speed. Beyond, every step is measured at rest.
_KEPT_SPEED = 0.8
_LEAST_TO_DOUBLE = 8

# Rungs of the search, far from the best and near it. A rung is worth it if log throughput grows by more than this
# share of log concurrency: a server that queues is held near the fewest that keep it busy, one whose throughput
# follows c / (c + k) at 0.95 of all it can do.
_FAR_RUNG = 2.0
_NEAR_RUNG = 1.25
_WORTH = 0.05
# Every request more in flight is one more begun and not yet answered. That must come back within so many seconds, or
# slow answers would get much slower for a few per cent.
_REPAID_SECONDS = 600.0
# A trial that changed throughput so much was far from the best.
_FAR_GAIN = 1.12

# An epoch ends when its throughput is known to this share (one standard error), or after so many round trips.
_PRECISION = 0.02
_LEAST_ANSWERS = 16
_LEAST_ROUND_TRIPS = 0.25
_MOST_ROUND_TRIPS = 2.0
# A trial above its rung is given up early, after so many answers, if it yields surely less than this share.
_LEAST_TO_REJECT = 8
_CLEARLY_WORSE = 0.95
# What was too many is forgotten at this pace per epoch; steps smaller than this share show too little.
_FORGETTING = 1.02
_LEAST_STEP = 0.08
# Epochs between trials in one direction: doubles with each in vain. At a server's knee a trial downwards costs a fifth.
_MOST_EPOCHS_BETWEEN = 32
# A throughput that moved by this share is another situation: what trials found no longer counts.
_DRIFT = 0.15
# Another epoch of the same rung is weighed so much in its mean.
_NEW_EPOCH = 0.5

# Share of an epoch's answers that found all slots taken: from here on it is this limit that binds, and below the
# other share it never does.
_BINDING = 0.8
_NEVER_BINDING = 0.05

# Back towards the refused level: this share, at least one, per round trip.
_RECOVERY = 0.01


class _Phase(Enum):
    DOUBLING = "doubling"
    RECOVERING = "recovering"
    HOLDING = "holding"
    TRYING = "trying"


class AdaptiveConcurrency(InFlight):
    """Requests in flight where nobody said how many: a drop-in for `Concurrency` that looks for the number.

    It starts low and doubles per round trip while each request keeps its speed. Then it climbs rungs: it measures the
    rung it is on, tries one above or below now and then, and moves where the trial was worth it, so it follows a
    server that changes. A refusal lowers it gently, and the refused level is left alone for a while that grows with
    repetition. While fewer are in flight than it allows, another limit binds and nothing is learned.

    Holds no clock: times are monotonic seconds, given with each call. `refused` is told while the attempt is still in
    flight, `answered` after `give_back`.
    """

    def __init__(self, ceiling: int, known: int | None = None, name: str = "") -> None:
        """
        Args:
            ceiling: never more than this.
            known: what an earlier run found: the search starts there.
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
        """What to remember for the next run; `None` while still doubling."""
        return None if self._phase is _Phase.DOUBLING else int(self._base)

    def answered(self, tokens: int, started: float, now: float) -> None:
        """A good answer of so many tokens came, to an attempt that started then."""
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
        """The server asked us to slow down: at most one decrease per round trip.

        Returns:
            Is it explained? So many were refused before, and were only tried again: no other limit is to blame.
        """
        level = self.in_flight
        refusals = self._refusals
        if not refusals.counts(level):
            return False
        explained = level >= refusals.level
        if started < refusals.lowered_at:
            # Sent before the last decrease: all it says is that it was one too many itself.
            self.allowed = max(1.0, min(self.allowed, level - 1.0))
        else:
            self.allowed = max(1.0, min(self.allowed, float(level)) * DECREASE)
            refusals.close(level, now)
        refusals.level = float(level)
        self._base = max(1.0, level - 1.0)
        self._mean = None
        # Who refuses does not queue: there is no line to shorten.
        self._wait[_DOWN] = _MOST_EPOCHS_BETWEEN
        self._rung[_UP] = _NEAR_RUNG
        self._phase = _Phase.RECOVERING
        return explained

    def _reopen(self) -> None:
        """The refusal was another limit's: go on as before it."""
        self._refusals.forget()
        self._phase = _Phase.DOUBLING
        self._base = self.allowed
        self._speed = None
        self._epoch = ThroughputWindow()

    def _probe(self) -> None:
        """The refused level has been left alone for long enough: one more, until it is refused or borne."""
        self._refusals.try_again()
        self.allowed = min(float(self.ceiling), self._refusals.level)
        self._hold(self.allowed)

    def _top(self, now: float) -> float:
        """The most that may be tried now."""
        return min(float(self.ceiling), self._refusals.most(now))

    def _double(self, now: float, *, full: bool) -> None:
        """One more per answer doubles them per round trip."""
        if full:
            self.allowed = min(2 * self._base, self._top(now), self.allowed + 1)
        epoch = self._epoch
        if epoch.answers < max(_LEAST_TO_DOUBLE, self._base):
            return
        self._epoch = ThroughputWindow()
        if epoch.full < _BINDING:
            # Another limit binds, and this one should not do so even at times.
            if epoch.full > _NEVER_BINDING:
                self._base = self.allowed
            return
        before, self._speed = self._speed, epoch.speed
        if before is not None and epoch.speed < before * _KEPT_SPEED:
            # These requests saw what was allowed a round trip ago: the last doubling was one too many.
            self._hold(self._base)
        elif self.allowed == self._base:
            # As many as may be.
            self._hold(self._base)
        else:
            self._base = self.allowed

    def _recover(self, *, full: bool) -> None:
        """Slowly back to just below the refused level."""
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
        """Does this answer show the target? One more per answer goes there, then a round trip passes."""
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
        # Nothing waits for an epoch that only repeats what is known: those between trials last a round trip.
        hurried = self._phase is _Phase.TRYING or self._mean is None
        if answers < max(_LEAST_ANSWERS, self._target * (_LEAST_ROUND_TRIPS if hurried else 1.0)):
            return False
        return self._epoch.error <= _PRECISION or answers >= self._target * _MOST_ROUND_TRIPS + _LEAST_ANSWERS

    @property
    def _rising(self) -> bool:
        """Is it in a trial above its rung?"""
        return self._phase is _Phase.TRYING and self._target > self._base

    def _clearly_worse(self) -> bool:
        """Has a trial above its rung lost already? Answers that began below make it look better than it is."""
        epoch = self._epoch
        if self._mean is None or epoch.answers < _LEAST_TO_REJECT:
            return False
        return epoch.throughput * (1 + 2 * epoch.error) < self._mean * _CLEARLY_WORSE

    def _measured(self, now: float) -> None:
        """An epoch is over: go on from what it shows."""
        epoch = self._epoch
        if epoch.full < _BINDING:
            # Another limit binds. This one should not do so even at times.
            if epoch.full > _NEVER_BINDING:
                self._base = max(self._base, min(self._top(now), self._base + max(1.0, self._base * _RECOVERY)))
            self._hold(self._base)
        elif self._phase is _Phase.TRYING:
            self._weigh(epoch, now)
        else:
            self._follow(epoch.throughput)
            self._choose(now)

    def _follow(self, throughput: float) -> None:
        """Keep the mean of the rung we are on."""
        if self._mean is None:
            self._mean = throughput
        elif abs(throughput / self._mean - 1) > _DRIFT:
            self._mean = throughput
            self._wait = {_UP: 1, _DOWN: 1}
            self._too_many = math.inf
        else:
            self._mean += (throughput - self._mean) * _NEW_EPOCH

    def _choose(self, now: float) -> None:
        """Stay on the rung for another epoch, or try one beside it."""
        base = self._base
        self._too_many *= _FORGETTING
        # Halfway to what was clearly too many: trials come closer to the best, and cost less.
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
        """A trial is over: move there or go back."""
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
        """A trial was not worth it: back, and wait longer before the next."""
        direction = _UP if self._target > self._base else _DOWN
        self._rung[direction] = _NEAR_RUNG
        self._wait[direction] = min(_MOST_EPOCHS_BETWEEN, self._wait[direction] * 2)
        self._hold(self._base)


_UP, _DOWN = 1, -1
