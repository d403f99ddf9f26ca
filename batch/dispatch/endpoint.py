"""One endpoint's live state."""

import math
from random import Random

from batch.clock import Clock
from batch.dispatch.health import Health, State
from batch.dispatch.limiters import Concurrency
from batch.dispatch.providers import build_limiters, told_limiter
from batch.dispatch.request import NOTHING, Allowance, Completion, Cost, Request
from batch.dispatch.speed import Speed
from batch.errors import DispatchError
from schemas.endpoints import EndpointSpec


def address(spec: EndpointSpec, model: str) -> str:
    """What an endpoint is called in journals and reports: its URL, or LiteLLM's name where LiteLLM knows the URL."""
    return spec.url or f"litellm:{spec.model or model}"


class Endpoint:
    """Limits, requests in flight, health, speed and counts of one endpoint.

    Everything the pool and the balancers look at; changed only by `start` and the ends of an attempt.
    """

    def __init__(self, spec: EndpointSpec, model: str, index: int, clock: Clock, random: Random) -> None:
        self.spec = spec
        self.url = address(spec, model)
        self.model = spec.model or model
        self.index = index
        self.weight = spec.weight
        self.health = Health(clock, random)
        self.speed = Speed(clock)
        self.limiters = build_limiters(spec.limits, spec.provider, clock)
        self.concurrency = Concurrency(spec.limits.max_in_flight or 64)
        self.sent = self.throttled = self.errors = 0
        self._clock = clock
        self._taken = NOTHING
        self._marks: dict[Request, Cost] = {}

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return self.concurrency.in_flight

    @property
    def out(self) -> bool:
        """Is it out for the rest of the run?"""
        return self.health.state is State.OUT

    def delay(self, cost: Cost) -> float:
        """Seconds until it may take a request of this cost; infinity if only an event can tell."""
        longest = self.concurrency.delay()
        if longest is math.inf:
            return longest
        health = self.health
        longest = max(longest, health.delay())
        if self.in_flight and health.starting:
            longest = max(longest, health.share_delay((self.in_flight + 1) / self.concurrency.allowed))
        for limiter in self.limiters:
            longest = max(longest, limiter.delay(cost))
        return longest

    def can_take(self, cost: Cost) -> bool:
        """Now that it may take one request, may it as well be one of this cost?"""
        return all(limiter.may_owe or limiter.delay(cost) <= 0.0 for limiter in self.limiters)

    def start(self, request: Request) -> None:
        """An attempt starts."""
        request.started = self._clock()
        self.concurrency.take()
        cost = request.cost
        if self.limiters:
            for limiter in self.limiters:
                limiter.take(cost)
            taken = self._taken
            self._taken = Cost(
                taken.requests + cost.requests,
                taken.input + cost.input,
                taken.output + cost.output,
                taken.expected + cost.expected,
            )
            self._marks[request] = self._taken
        self.health.started()
        self.sent += 1

    def answered(self, request: Request, completion: Completion) -> None:
        """The attempt ended well."""
        now = self._clock()
        taken = request.cost
        prompt = completion.prompt_tokens
        answer = completion.completion_tokens
        tokens = taken.expected if answer is None else answer
        used = Cost(1, taken.input if prompt is None else prompt, tokens, tokens)
        self._end(request, used, completion.allowances, now)
        self.health.answered()
        self.speed.answered(now - request.started, tokens)
        self.concurrency.answered(tokens, request.started, now)

    def failed(self, request: Request, error: DispatchError) -> None:
        """The attempt ended in an error. Tokens stay charged where the server may have used them."""
        now = self._clock()
        if error.blame == "throttle":
            self.throttled += 1
            self.concurrency.refused(request.started, now)
        else:
            self.errors += 1
        if error.blame == "endpoint":
            self.speed.failed(now - request.started)
        spared = error.blame != "endpoint" or not error.reached
        self._end(request, _SPARED if spared else request.cost, error.allowances, now)
        self.health.failed(error, request.started)

    def abandoned(self, request: Request) -> None:
        """The attempt was cancelled before its end."""
        self._end(request, request.cost, (), self._clock())
        self.health.abandoned()

    def _end(self, request: Request, used: Cost, allowances: tuple[Allowance, ...], now: float) -> None:
        self.concurrency.give_back()
        if self.limiters:
            for limiter in self.limiters:
                limiter.settle(request.cost, used)
        mark = self._marks.pop(request, None)
        if allowances:
            self._correct(allowances, mark or self._taken, now - request.started)

    def _correct(self, allowances: tuple[Allowance, ...], mark: Cost, age: float) -> None:
        """The server said where it stands: a limit of which nothing is configured is taken from what it says."""
        since = Cost(*(now - then for now, then in zip(self._taken, mark, strict=True)))
        for said in allowances:
            known = [limiter for limiter in self.limiters if limiter.measure == said.measure]
            for limiter in known:
                limiter.correct(said, since, age)
            if not known and said.limit is not None and said.limit > 0:
                self.limiters.append(told_limiter(said.measure, said.limit, self.spec.provider, self._clock))

    def __repr__(self) -> str:
        return f"Endpoint({self.url}, {self.health.state.value}, {self.in_flight} in flight, {self.sent} sent)"


# Of an attempt that the server refused, only the request itself counts.
_SPARED = Cost(1, 0, 0, 0)
