"""Whether a server's refusals depend on the pace of the requests: some servers refuse a share of them at any pace."""

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

# A rate limit refuses nothing below it. So many refusals at paces that the server let through before, each with a
# request let through since the one before, raise the suspicion that there is none. With fewer, a first estimate that
# is too high would raise it; with more, the pace would fall far, since each refusal takes up to 0.3 of it.
_SUSPICIOUS = 4
# A slow pace grows beyond what was let through within a few requests, so a refusal there may be suspicious as well: it
# speaks for a limit only after more requests than this. A server that refuses one in five lets so many through once in
# eighteen times.
_EXPLAINED = 12
# Until so many requests have told, refusals lower the pace to no less than this part of what it was. By chance, half
# of ten requests may be refused in a row, and a pace that has fallen low takes minutes to gather evidence.
_FEW, _KEPT = 16, 0.25
# Where more than this share is refused a limit is taken for granted: a few dozen requests could not tell.
_MOST_SHARE = 0.7
_LEAST_SHARE = 0.03
# A trial at so many times the pace settles it. A limit lets no more requests a second through than before, so that it
# refuses at least two in three; a server that refuses a fixed share refuses that share. After a step too far, smaller
# steps come closer to a limit that there is as well; steps below the smallest would take hundreds of requests.
_FIRST_STEP, _SMALLEST_STEP = 3.0, 1.3
# Wald's sequential test: beyond this log likelihood ratio one verdict in twenty is wrong. A limit that saves up a burst
# lets a few requests through at any pace, so a trial has at least so many. Without a verdict after the most, something
# else holds the requests back, and the trial has failed.
_SURE = 3.0
_SHORTEST_TRIAL, _LONGEST_TRIAL = 16, 80
# Requests between steps, which show whether the verdict was right. Twice as many after each step too far.
_REST, _LONGEST_REST = 24, 1024
# Within a rest the share of refusals has risen once a CUSUM for "half as many are let through" reaches the first
# number: a wrong alarm in about a thousand requests, a right one after about ten refusals. At the end of a rest it has
# risen if it is so many standard deviations above the usual share.
_ALARM, _DEVIATIONS = 7.0, 2.0
# The usual share is a mean over so many requests, so that it follows a server whose share changes.
_REMEMBERED = 200
# After so many requests without a refusal there is no share of refusals any more.
_CLEAR = 100
# A request that was not refused within so many times what a refusal takes was let through. To wait for its answer could
# take minutes.
_PATIENCE = 2.0


@dataclass(slots=True)
class _Tally:
    """Requests sent from a time on: how many, and how many of them were let through (`good`) or refused (`bad`)."""

    began: float = 0.0
    sent: int = 0
    good: float = 0.0
    bad: float = 0.0

    @property
    def known(self) -> float:
        """Requests of which it is known whether they were refused."""
        return self.good + self.bad

    @property
    def share(self) -> float:
        """Of them, those that were refused; half a refusal is added, since there could have been one."""
        return min(_MOST_SHARE, max(_LEAST_SHARE, (self.bad + 0.5) / (self.known + 1)))


class RefusalShare:
    """Tells limits, which a lower pace satisfies, from servers that refuse a share of the requests at any pace.

    Such servers sell spare capacity (Groq's flex tier), or share a limit among many clients. If each refusal lowered
    the pace, a job would come to a standstill there. Where refusals come below the pace that the server let through
    before, a trial at a higher pace decides. If the server lets as large a part of the requests through there, this
    class takes the pace over: `pace` overlooks refusals and rises in steps, each one a trial that the requests after it
    must confirm. Where the share of refusals rises with the pace it goes back a step; where the share rises without a
    step, this class gives the pace up, and refusals lower it again.
    """

    def __init__(self) -> None:
        self.pace: float | None = None
        """Requests per second while this class decides; `None`: each refusal lowers the pace."""
        self._base = 0.0
        """The pace that is held, or that the trial began from."""
        self._before: float | None = None
        """The pace before the last step, until the rest after it has confirmed that."""
        self._confirmed = False
        """Is the base itself the outcome of a trial?"""
        self._trial: _Tally | None = None
        self._limit = 0.0
        """Requests per second that a limit lets through, if there is one."""
        self._latest = _Tally()
        """Since the suspicion arose, or of the rest."""
        self._usual = _Tally()
        """What tells the usual share of refusals."""
        self._step = _FIRST_STEP
        self._rest = _REST
        self._cusum = 0.0
        self._suspicions = 0
        self._top: float | None = None
        """The pace when the suspicion arose."""
        self._clear = 0
        """Requests let through since the last refusal."""
        self._pending: deque[float] = deque()
        """When requests were sent that may still be refused."""
        self._sent_at = 0.0
        self._patience = 0.0

    def sent(self, now: float) -> float | None:
        """A request goes out now.

        Returns:
            The pace from which to grow as usual, where this class gives it up because nothing is refused any more.
        """
        self._sent_at = now
        if self._trial is not None:
            self._trial.sent += 1
        self._latest.sent += 1
        pending = self._pending
        pending.append(now)
        while pending[0] < now - self._patience:
            self._let_through(pending.popleft(), now)
        if self._clear < _CLEAR or self.pace is None:
            return None
        return self._give_up(now)

    def refused(self, started: float, now: float, *, binding: bool) -> float | None:
        """The request that started then was refused, while this class decides.

        Args:
            binding: is it the pace that holds requests back? Otherwise a higher one would show nothing.

        Returns:
            The pace to be lowered, where this class gives it up; else `None`.
        """
        self._forget(started, now)
        self._clear = 0
        trial = self._trial
        if trial is not None:
            trial.bad += started >= trial.began
            if trial.known < _SHORTEST_TRIAL or (trial.known < _LONGEST_TRIAL and self._verdict(trial) > -_SURE):
                return None
            return self._step_back(self._base if self._confirmed else None, now)
        rest = self._latest
        if started < rest.began:
            return None
        rest.bad += 1
        if self._has_risen(rest):
            return self._step_back(self._before, now)
        if rest.known >= self._rest:
            self._learn(now)
            if binding:
                self._begin_trial(rest, now)
        return None

    def suspects(self, started: float, rate: float, now: float, *, explained: bool, binding: bool) -> bool:
        """After a refusal at this pace, while this class does not decide: shall a trial settle whether to lower it?

        Args:
            explained: was nothing known of the pace, or was it no lower than what the server let through before?
            binding: as for `refused`.
        """
        latest = self._latest
        apart = self._clear > 0 or bool(self._pending and self._pending[0] < started)
        explained = explained and self._clear + len(self._pending) > _EXPLAINED
        self.count_refused(started, now)
        if explained or (latest.known >= _SHORTEST_TRIAL and latest.bad > _MOST_SHARE * latest.known):
            self._suspicions = 0
            self._top = None
            self._latest = _Tally(now)
            return False
        if self._top is None and rate < math.inf:
            self._top = rate
        self._suspicions += apart
        if self._suspicions < _SUSPICIOUS or not binding or latest.bad > _MOST_SHARE * latest.known:
            return False
        self._usual = latest
        self._base = rate
        self._begin_trial(latest, now)
        return True

    def count_refused(self, started: float, now: float) -> None:
        """The request that started then was refused, and no decision hangs on it."""
        self._forget(started, now)
        self._latest.bad += started >= self._latest.began
        self._clear = 0

    def floor(self, rate: float) -> float:
        """After a refusal at this pace, the pace to lower it to at the most."""
        if self._top is None or self._latest.known >= _FEW:
            return 0.0
        return min(rate, self._top * _KEPT)

    def _forget(self, started: float, now: float) -> None:
        self._patience = max(_PATIENCE * (now - started), self._patience * 0.9)
        with suppress(ValueError):
            self._pending.remove(started)

    def _let_through(self, started: float, now: float) -> None:
        self._clear += 1
        trial = self._trial
        if trial is None:
            self._latest.good += started >= self._latest.began
            self._cusum = max(0.0, self._cusum - math.log(2.0))
        elif started >= trial.began:
            trial.good += 1
            if trial.known >= _SHORTEST_TRIAL and self._verdict(trial) >= _SURE:
                assert self.pace is not None
                self._before = self._base if self._confirmed else None
                self._confirmed = True
                self._rest = _REST
                self._hold(self.pace, now)

    def _verdict(self, trial: _Tally) -> float:
        """Log likelihood ratio of "refuses a fixed share" to "has a limit".

        By the clock, pauses included: a limit saves up meanwhile.
        """
        chance = 1 - self._usual.share
        limited = self._limit * (self._sent_at - trial.began) / trial.sent
        if limited >= chance:
            return 0.0
        limited = max(limited, chance / self._step / 2)
        return trial.good * math.log(chance / limited) + trial.bad * math.log((1 - chance) / (1 - limited))

    def _has_risen(self, rest: _Tally) -> bool:
        """Has the share of refusals risen, after another one?"""
        share = self._usual.share
        most = min(_MOST_SHARE, share + math.sqrt(share * (1 - share) / (self._usual.known + 1)))
        self._cusum += math.log((1 - (1 - most) / 2) / most)
        if self._cusum > _ALARM:
            return True
        most += _DEVIATIONS * math.sqrt(most * (1 - most) / rest.known)
        return rest.known >= self._rest and rest.bad > most * rest.known

    def _learn(self, now: float) -> None:
        """The rest is over and the share has not risen: its requests tell it more exactly."""
        usual, rest = self._usual, self._latest
        kept = min(1.0, _REMEMBERED / (usual.known + rest.known))
        self._usual = _Tally(now, 0, (usual.good + rest.good) * kept, (usual.bad + rest.bad) * kept)
        self._latest = _Tally(now)
        self._before = None

    def _begin_trial(self, shown: _Tally, now: float) -> None:
        """Go faster than these requests went."""
        seconds = max(now - shown.began, 1e-9)
        # The burst that a limit had saved up may be among those let through, and a lucky one.
        self._limit = (shown.good + 1) / seconds
        self.pace = self._step * max(self._base, shown.sent / seconds)
        self._trial = _Tally(now)

    def _step_back(self, pace: float | None, now: float) -> float | None:
        """More were refused at the higher pace: hold the one before; give it up if that was never put to a trial."""
        if pace is None:
            return self._give_up(now)
        self._step = max(_SMALLEST_STEP, math.sqrt(self._step))
        self._rest = min(_LONGEST_REST, self._rest * 2)
        self._before = None
        self._hold(pace, now)
        return None

    def _hold(self, pace: float, now: float) -> None:
        self.pace = self._base = pace
        self._trial = None
        self._latest = _Tally(now)
        self._cusum = 0.0

    def _give_up(self, now: float) -> float:
        self.pace = self._trial = self._before = None
        self._confirmed = False
        self._step, self._rest = _FIRST_STEP, _REST
        self._suspicions = self._clear = 0
        self._top = None
        self._latest = _Tally(now)
        return self._base
