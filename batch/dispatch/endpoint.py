"""An endpoint: its transport, and its live state."""

import logging
import math
from random import Random

from batch.clock import Clock
from batch.dispatch.endpoint_speed import EndpointSpeed
from batch.dispatch.health import Health, State
from batch.dispatch.judging.refusals import Refusals, clearly_about_row, is_refusal, is_unreadable
from batch.dispatch.limits.adaptive_concurrency import AdaptiveConcurrency
from batch.dispatch.limits.adaptive_rate import AdaptiveRate
from batch.dispatch.limits.build import build_limiters, limiter_from_header
from batch.dispatch.limits.requests import Concurrency, Limiter
from batch.dispatch.packing.pack_size import PackSize
from batch.dispatch.request import NOTHING, Completion, LimitCost, Request
from batch.dispatch.transports.base import Transport
from batch.errors import DispatchError
from batch.limits import Allowance, LearnedLimits
from schemas.endpoints import EndpointSpec

_log = logging.getLogger("batchrouter.dispatch.endpoint")


def address(spec: EndpointSpec, model: str) -> str:
    """What an endpoint is called in journals and reports: its name, else where it is."""
    return spec.name or spec.place(model)


# A row that one endpoint refused waits for an endpoint that pauses for no longer than this.
_SHORT_PAUSE_SECONDS = 60.0

# The most requests in flight at an endpoint without a configured `max_in_flight`: each takes a connection, and memory
# for a row.
MOST_IN_FLIGHT = 1024


class Endpoint:
    """One endpoint's transport, limits, requests in flight, health, speed and counts.

    The pool and the balancers read this state. It changes only when an attempt starts (`start`) or ends (`answered`,
    `failed`, `abandoned`).
    """

    def __init__(
        self,
        spec: EndpointSpec,
        model: str,
        index: int,
        transport: Transport,
        clock: Clock,
        random: Random,
        known: LearnedLimits | None = None,
        *,
        measured: bool = True,
        connections: int | None = None,
    ) -> None:
        """
        Args:
            index: its place among the endpoints of its pool.
            transport: sends to it.
            known: limits that an earlier sitting learned.
            measured: should `speed` be kept up to date? It takes a twentieth of the dispatcher's time.
            connections: the most connections that this process can open to it; `None`: any number.
        """
        known = known or LearnedLimits()
        self.spec = spec
        self.url = address(spec, model)
        self.model = spec.model or model
        self.index = index
        self.transport = transport
        self.pack_size = PackSize(spec.limits.max_inputs)
        self.weight = spec.weight
        self.health = Health(clock, random, self.url)
        self.speed = EndpointSpeed(clock)
        self._measured = measured
        self.limiters: list[Limiter] = build_limiters(spec.limits, spec.provider, clock)
        # A server may refuse a request although its configured limits are kept: other clients share the limits, or not
        # all of them are configured.
        patient = bool(self.limiters)
        self.pace = AdaptiveRate(clock, known=known.rpm, patient=patient, configured=spec.limits.rpm, name=self.url)
        most = spec.limits.max_in_flight
        able = MOST_IN_FLIGHT if most is None else most
        ceiling = able if connections is None else min(able, connections)
        self.concurrency: Concurrency | AdaptiveConcurrency = (
            AdaptiveConcurrency(ceiling, known.in_flight, self.url) if most is None else Concurrency(ceiling)
        )
        self._short_of_connections = ceiling < able
        self.sent = self.throttled = self.errors = self.answers = 0
        self.refusals = Refusals()
        self.last_answered = -1
        """Number (`Request.order`) of the latest request that was answered well."""
        self._last_started = 0
        self._doubted_from = 0
        self._clock = clock
        self._taken = NOTHING
        self._marks: dict[Request, LimitCost] = {}
        self._states_limits = False
        self.counts_tokens = self._counts_tokens()
        """Does any of its limiters count tokens?"""

    @property
    def in_flight(self) -> int:
        """Requests in flight."""
        return self.concurrency.in_flight

    @property
    def held_back(self) -> bool:
        """Is the number of connections that this process can open what limits the requests in flight?"""
        return self._short_of_connections and self.concurrency.allowed >= self.concurrency.ceiling

    @property
    def out(self) -> bool:
        """Is it out for the rest of the run?"""
        return self.health.state is State.OUT

    @property
    def well(self) -> bool:
        """May it be sent a request now, or after a short pause?"""
        return self.health.state is State.UP and self.health.delay() <= _SHORT_PAUSE_SECONDS

    @property
    def found(self) -> LearnedLimits:
        """The limits learned so far."""
        concurrency = self.concurrency
        in_flight = concurrency.found if isinstance(concurrency, AdaptiveConcurrency) else None
        return LearnedLimits(in_flight, self.pace.found)

    def delay(self, cost: LimitCost) -> float:
        """Seconds until it may take a request of this cost; infinity: not before a request in flight has ended."""
        longest = self.concurrency.delay()
        if longest is math.inf:
            return longest
        health = self.health
        if health.doubted and self.in_flight:
            # A request in flight may be answered, which ends the doubt. Each row sent meanwhile may be refused in vain.
            return math.inf
        if not health.never_waited:
            longest = health.delay()
            if self.in_flight and health.starting:
                longest = max(longest, health.slow_start_delay((self.in_flight + 1) / self.concurrency.allowed))
        if self.pace.holds:
            longest = max(longest, self.pace.delay(cost))
        for limiter in self.limiters:
            longest = max(longest, limiter.delay(cost))
        return longest

    def can_take(self, cost: LimitCost) -> bool:
        """If the endpoint may take a request now, may it take one of this cost?"""
        return all(limiter.may_owe or limiter.delay(cost) <= 0.0 for limiter in self.limiters)

    def start(self, request: Request) -> None:
        """An attempt at `request` starts: take its cost from all limits."""
        # `health.started` comes first: a probe is recognized by a start no earlier than the probing began.
        self.health.started()
        request.started = self._clock()
        self._last_started = request.order
        self.concurrency.take()
        cost = request.cost
        self.pace.take(cost)
        for limiter in self.limiters:
            limiter.take(cost)
        if self._states_limits:
            self._taken = self._taken.plus(cost)
            self._marks[request] = self._taken
        self.sent += 1

    def answered(self, request: Request, completion: Completion) -> None:
        """The attempt ended well."""
        now = self._clock()
        taken = request.cost
        prompt = taken.input if completion.prompt_tokens is None else completion.prompt_tokens
        answer = taken.expected if completion.completion_tokens is None else completion.completion_tokens
        self._end(request, LimitCost(1, prompt, answer, answer), completion.allowances, now)
        self.answers += 1
        if request.order > self.last_answered:
            self.last_answered = request.order
        if not self.refusals.rows:
            self.health.answered(request.started)
        elif not self.health.doubted or request.order >= self._doubted_from:
            # An answer to a request from before the doubt would only say that the endpoint was well at that time.
            self.refusals.clear()
            self.health.answered(request.started)
        # Embeddings have no answer tokens; the work is to read the prompt.
        work = answer or prompt
        if self._measured:
            self.speed.answered(now - request.started, work)
        self.concurrency.answered(work, request.started, now)

    def failed(self, request: Request, error: DispatchError, *, of_row: bool = False) -> None:
        """The attempt ended in an error. Its tokens stay charged to the limits if the server may have used them.

        Args:
            of_row: the row is to blame, so the error says nothing about the endpoint's health.
        """
        now = self._clock()
        if error.blame == "throttle":
            self.throttled += 1
            if self.pace.ignores_refusals:
                # The server refuses a share of requests at any pace, so neither fewer in flight nor a pause would help.
                self.health.forget_throttles()
                self.pace.refused(request.started)
            else:
                explained = self.concurrency.refused(request.started, now)
                self.pace.refused(request.started, explained=explained)
        else:
            self.errors += 1
        if self._measured and error.blame == "endpoint":
            self.speed.failed(now - request.started)
        spared = error.blame != "endpoint" or not error.reached
        self._end(request, _SPARED if spared else request.cost, error.allowances, now)
        if is_refusal(error) or (is_unreadable(error) and not self.answers):
            self._refused(request, error)
        self.health.failed(error, request.started, of_row=of_row)

    def give_up(self, error: DispatchError) -> None:
        """Put the endpoint out for the rest of the run, because it refused different rows with errors like this one."""
        count = self.refusals.count(error)
        # Not the server's words: only what cannot repeat a prompt.
        _log.warning(
            "%s is out for the rest of the run, because it refused %d rows: %s, HTTP %s, code %s",
            self.url,
            count,
            error.kind,
            error.status,
            error.code,
        )
        rows = f"{count} different rows" if count > 1 else "the row that it was sent"
        if is_unreadable(error):
            self.health.out(f"its first answers, to {rows}, were all unreadable: {error}")
        elif self.answers:
            self.health.out(f"it refused {rows} alike, and answered nobody in between: {error}")
        else:
            self.health.out(f"it refused {rows}, and answered nobody: {error}")

    def _refused(self, request: Request, error: DispatchError) -> None:
        if request.rows and error.blame == "row":
            # Perhaps the pack was only too large: the lane sends its halves, and they tell.
            return
        if clearly_about_row(error) and self.answers:
            return
        probe = self.health.doubted and request.order >= self._doubted_from
        match self.refusals.add(request, error, in_flight=self.in_flight, probe=probe):
            case "out":
                self.give_up(error)
            case "doubt" if not self.health.doubted:
                self._doubted_from = self._last_started + 1
                self.health.doubt(str(error))
                _log.info(
                    "%s is sent one row at a time, because it refused many: %s, HTTP %s, code %s",
                    self.url,
                    error.kind,
                    error.status,
                    error.code,
                )

    def abandoned(self, request: Request) -> None:
        """The attempt was cancelled before its end."""
        self._end(request, request.cost, (), self._clock())
        self.health.abandoned()

    def _end(self, request: Request, used: LimitCost, allowances: tuple[Allowance, ...], now: float) -> None:
        self.concurrency.release()
        for limiter in self.limiters:
            limiter.settle(request.cost, used, now - request.started)
        if self._states_limits:
            mark = self._marks.pop(request, self._taken)
            if allowances:
                self._correct(allowances, mark, now - request.started)
        elif allowances:
            self._states_limits = True
            self._correct(allowances, self._taken, now - request.started)

    def _correct(self, allowances: tuple[Allowance, ...], mark: LimitCost, age: float) -> None:
        """Correct the limiters by what the server states; a stated limit that is not configured gets a limiter."""
        since = self._taken.less(mark)
        for said in allowances:
            known = [limiter for limiter in self.limiters if limiter.measure == said.measure]
            for limiter in known:
                limiter.correct(said, since, age)
            if not known and said.limit is not None and said.limit > 0:
                self.limiters.append(limiter_from_header(said.measure, said.limit, self.spec.provider, self._clock))
                self.counts_tokens = self._counts_tokens()
                _log.info("%s states a limit of %.0f per minute on %s", self.url, said.limit, said.measure)

    def _counts_tokens(self) -> bool:
        return any(limiter.measure != "requests" for limiter in self.limiters)

    def __repr__(self) -> str:
        return f"Endpoint({self.url}, {self.health.state.value}, {self.in_flight} in flight, {self.sent} sent)"


# An attempt that the server refused uses no tokens, only the request itself.
_SPARED = LimitCost(1, 0, 0, 0)
