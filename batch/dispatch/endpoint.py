"""One endpoint's live state."""

import math
from random import Random

from batch.clock import Clock
from batch.dispatch.health import Health, State
from batch.dispatch.limiters import build_limiters
from batch.dispatch.request import Cost
from batch.errors import DispatchError
from schemas.endpoints import EndpointSpec


def address(spec: EndpointSpec, model: str) -> str:
    """What an endpoint is called in journals and reports: its URL, or LiteLLM's name where LiteLLM knows the URL."""
    return spec.url or f"litellm:{spec.model or model}"


class Endpoint:
    """Limits, requests in flight, health and counts of one endpoint.

    Everything the pool and the balancers look at; changed only by `start` and the two ends of an attempt.
    """

    def __init__(self, spec: EndpointSpec, model: str, index: int, clock: Clock, random: Random) -> None:
        self.spec = spec
        self.url = address(spec, model)
        self.model = spec.model or model
        self.index = index
        self.weight = spec.weight
        self.health = Health(clock, random)
        self.concurrency, self.limiters = build_limiters(spec.limits, clock)
        self.sent = self.throttled = self.errors = 0

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
        longest = self.concurrency.delay(cost)
        if longest is math.inf:
            return longest
        longest = max(longest, self.health.delay())
        for limiter in self.limiters:
            longest = max(longest, limiter.delay(cost))
        return longest

    def start(self, cost: Cost) -> None:
        """An attempt starts."""
        self.concurrency.take(cost)
        for limiter in self.limiters:
            limiter.take(cost)
        self.health.started()
        self.sent += 1

    def answered(self, taken: Cost, used: Cost) -> None:
        """The attempt ended well."""
        self._give_back(taken, used)
        self.health.answered()
        self.concurrency.answered()

    def failed(self, taken: Cost, error: DispatchError) -> None:
        """The attempt ended in an error. Tokens stay charged where the server may have used them."""
        if error.blame == "throttle":
            self.throttled += 1
            self.concurrency.refused()
        else:
            self.errors += 1
        spared = error.blame != "endpoint" or not error.reached
        self._give_back(taken, Cost(1, 0) if spared else taken)
        self.health.failed(error)

    def abandoned(self, taken: Cost) -> None:
        """The attempt was cancelled before its end."""
        self._give_back(taken, taken)
        self.health.abandoned()

    def _give_back(self, taken: Cost, used: Cost) -> None:
        self.concurrency.settle(taken, used)
        for limiter in self.limiters:
            limiter.settle(taken, used)

    def __repr__(self) -> str:
        return f"Endpoint({self.url}, {self.health.state.value}, {self.in_flight} in flight, {self.sent} sent)"
