"""Whether a server's refusals depend on the pace of the requests: some servers refuse a share of them at any pace."""

import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

# A rate limit refuses no request below the limit. This many refusals at paces that the server accepted before, each
# with an accepted request between it and the refusal before, raise the suspicion that the server has no rate limit.
# With a smaller number, a first estimate of the pace that is too high would raise the suspicion; with a larger one, the
# pace would fall far first, since each refusal takes up to 0.3 of it.
_SUSPICIOUS = 4
# A slow pace grows beyond the accepted pace within a few requests, so a refusal there may be suspicious as well: it is
# evidence of a limit only after more accepted requests than this. A server that refuses one request in five accepts
# this many in a row once in eighteen times.
_EXPLAINED = 12
# Until the outcome of _FEW requests is known, refusals lower the pace to no less than _KEPT times what it was. By
# chance, half of ten requests may be refused in a row, and at a very low pace it takes minutes to gather evidence.
_FEW, _KEPT = 16, 0.25
# If the server refuses more than this share, this class assumes a limit: a few dozen requests could not tell the two
# cases apart. _LEAST_SHARE is the smallest share of refusals that this class reckons with.
_MOST_SHARE = 0.7
_LEAST_SHARE = 0.03
# A trial at _FIRST_STEP times the pace decides. A server with a limit accepts no more requests per second than before,
# so it refuses at least two in three; a server that refuses a fixed share still refuses that share. After a step that
# was too large, smaller steps come closer to a limit that the server may have as well; a trial with a step below
# _SMALLEST_STEP would take hundreds of requests.
_FIRST_STEP, _SMALLEST_STEP = 3.0, 1.3
# Wald's sequential test: beyond this log likelihood ratio one verdict in twenty is wrong. A limit that saves up a burst
# accepts a few requests at any pace, so a trial has at least _SHORTEST_TRIAL requests. If there is no verdict after
# _LONGEST_TRIAL requests, something else holds the requests back, and the trial has failed.
_SURE = 3.0
_SHORTEST_TRIAL, _LONGEST_TRIAL = 16, 80
# Requests between two steps (a "rest"), which show whether the verdict was right. The rest doubles after each step that
# was too large, up to _LONGEST_REST.
_REST, _LONGEST_REST = 24, 1024
# During a rest the share of refusals counts as risen once a CUSUM for "half as many requests are accepted" exceeds
# _ALARM: a false alarm in about a thousand requests, a true one after about ten refusals. At the end of a rest the
# share counts as risen if it is _DEVIATIONS standard deviations above the usual share.
_ALARM, _DEVIATIONS = 7.0, 2.0
# The usual share is a mean over this many requests, so that it follows a server whose share changes.
_REMEMBERED = 200
# After this many accepted requests without a refusal, the server no longer refuses a share of the requests.
_CLEAR = 100
# A request counts as accepted if it was not refused within this many times the time that a refusal takes. Waiting for
# its answer could take minutes.
_PATIENCE = 2.0


@dataclass(slots=True)
class _Tally:
    """Counts the requests since the time `began`: those sent, those accepted (`good`) and those refused (`bad`)."""

    began: float = 0.0
    sent: int = 0
    good: float = 0.0
    bad: float = 0.0

    @property
    def known(self) -> float:
        """The number of requests whose outcome, accepted or refused, is known."""
        return self.good + self.bad

    @property
    def share(self) -> float:
        """The refused share of the `known` requests, kept between `_LEAST_SHARE` and `_MOST_SHARE`.

        Half a refusal is added to the count, since no refusal so far does not prove a share of 0.
        """
        return min(_MOST_SHARE, max(_LEAST_SHARE, (self.bad + 0.5) / (self.known + 1)))


class RefusalShare:
    """Distinguishes rate limits, which a lower pace satisfies, from servers that refuse a share at any pace.

    Servers of the second kind sell spare capacity (Groq's flex tier), or share a limit among many clients. If each
    refusal lowered the pace, a job would come to a standstill there. When refusals come below the pace that the server
    accepted before, a trial at a higher pace decides. If the server accepts as large a share of the requests there,
    this class takes control of the pace: `pace` ignores refusals and rises in steps, each one a trial that the requests
    after it must confirm. If the share of refusals rises after a step, this class takes the step back; if the share
    rises without a step, this class returns control of the pace to the caller, and refusals lower the pace again.
    """

    def __init__(self) -> None:
        self.pace: float | None = None
        """Requests per second while this class controls the pace; `None` if it does not, and refusals lower it."""
        self._base = 0.0
        """The pace that this class holds, or from which the current trial began."""
        self._before: float | None = None
        """The pace before the last step, until the rest after the step has confirmed it; then `None`."""
        self._confirmed = False
        """Whether `_base` is itself the outcome of a successful trial."""
        self._trial: _Tally | None = None
        self._limit = 0.0
        """Requests per second that the server's limit would accept, if the server has a limit."""
        self._latest = _Tally()
        """Counts the requests of the current rest, or those since the suspicion arose."""
        self._usual = _Tally()
        """The requests from which the usual share of refusals is computed."""
        self._step = _FIRST_STEP
        self._rest = _REST
        self._cusum = 0.0
        self._suspicions = 0
        self._top: float | None = None
        """The pace when the suspicion arose."""
        self._clear = 0
        """Requests accepted since the last refusal."""
        self._pending: deque[float] = deque()
        """The send times of the requests that may still be refused, the oldest first."""
        self._sent_at = 0.0
        self._patience = 0.0

    def sent(self, now: float) -> float | None:
        """Record that a request is sent now.

        Returns:
            The pace from which the caller lets the pace grow as usual, if this class returns control of it because the
            server no longer refuses requests; else `None`.
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
        """Record a refusal of the request sent at `started`, while this class controls the pace.

        Args:
            binding: whether the pace is what holds requests back; if it is not, a higher pace would show nothing.

        Returns:
            The pace that the caller must lower, if this class returns control of it; else `None`.
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
        """Record a refusal at the pace `rate`, while this class does not control the pace, and perhaps begin a trial.

        Args:
            explained: whether a limit explains the refusal: the limit is still unknown, or the pace is no lower than
                the one that the server accepted before.
            binding: as for `refused`.

        Returns:
            Whether a trial has begun; if not, the caller lowers the pace.
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
        """Record a refusal of the request sent at `started`, without deciding anything about the pace."""
        self._forget(started, now)
        self._latest.bad += started >= self._latest.began
        self._clear = 0

    def floor(self, rate: float) -> float:
        """Return the lowest pace to which a refusal at the pace `rate` may lower it."""
        if self._top is None or self._latest.known >= _FEW:
            return 0.0
        return min(rate, self._top * _KEPT)

    def _forget(self, started: float, now: float) -> None:
        """Remove a refused request from those that may still be refused, and learn how long a refusal takes."""
        self._patience = max(_PATIENCE * (now - started), self._patience * 0.9)
        with suppress(ValueError):
            self._pending.remove(started)

    def _let_through(self, started: float, now: float) -> None:
        """Count the request sent at `started` as accepted; end the trial if this shows that it has succeeded."""
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
        """Return the log likelihood ratio of "the server refuses a fixed share" to "the server has a limit".

        The time of the trial is measured by the clock, pauses included, since a limit saves up a burst meanwhile.
        """
        chance = 1 - self._usual.share
        limited = self._limit * (self._sent_at - trial.began) / trial.sent
        if limited >= chance:
            return 0.0
        limited = max(limited, chance / self._step / 2)
        return trial.good * math.log(chance / limited) + trial.bad * math.log((1 - chance) / (1 - limited))

    def _has_risen(self, rest: _Tally) -> bool:
        """Update the CUSUM after one more refusal and return whether the share of refusals has risen."""
        share = self._usual.share
        most = min(_MOST_SHARE, share + math.sqrt(share * (1 - share) / (self._usual.known + 1)))
        self._cusum += math.log((1 - (1 - most) / 2) / most)
        if self._cusum > _ALARM:
            return True
        most += _DEVIATIONS * math.sqrt(most * (1 - most) / rest.known)
        return rest.known >= self._rest and rest.bad > most * rest.known

    def _learn(self, now: float) -> None:
        """At the end of a rest in which the share has not risen, add its requests to those of the usual share."""
        usual, rest = self._usual, self._latest
        kept = min(1.0, _REMEMBERED / (usual.known + rest.known))
        self._usual = _Tally(now, 0, (usual.good + rest.good) * kept, (usual.bad + rest.bad) * kept)
        self._latest = _Tally(now)
        self._before = None

    def _begin_trial(self, shown: _Tally, now: float) -> None:
        """Begin a trial at a pace above the one at which the requests of `shown` were sent."""
        seconds = max(now - shown.began, 1e-9)
        # The accepted requests may include a burst that the limit had saved up; one more is added for chance.
        self._limit = (shown.good + 1) / seconds
        self.pace = self._step * max(self._base, shown.sent / seconds)
        self._trial = _Tally(now)

    def _step_back(self, pace: float | None, now: float) -> float | None:
        """After a failed trial or a risen share, hold the earlier pace `pace`; make later steps smaller, rests longer.

        If `pace` is `None`, because no trial has confirmed an earlier pace, return control of the pace instead.

        Returns:
            The pace that the caller must lower, if this class returns control of it; else `None`.
        """
        if pace is None:
            return self._give_up(now)
        self._step = max(_SMALLEST_STEP, math.sqrt(self._step))
        self._rest = min(_LONGEST_REST, self._rest * 2)
        self._before = None
        self._hold(pace, now)
        return None

    def _hold(self, pace: float, now: float) -> None:
        """End the trial, if there is one, and begin a rest at this pace."""
        self.pace = self._base = pace
        self._trial = None
        self._latest = _Tally(now)
        self._cusum = 0.0

    def _give_up(self, now: float) -> float:
        """Return control of the pace to the caller, forget the steps so far, and return the last base pace."""
        self.pace = self._trial = self._before = None
        self._confirmed = False
        self._step, self._rest = _FIRST_STEP, _REST
        self._suspicions = self._clear = 0
        self._top = None
        self._latest = _Tally(now)
        return self._base
