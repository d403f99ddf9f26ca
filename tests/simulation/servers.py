"""Servers as formulas, with limits on what they do at once or accept, and a client of them, on a clock of their own."""

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from batch.dispatch.health import Health
from batch.dispatch.limits.adaptive_rate import AdaptiveRate
from batch.dispatch.request import LimitCost
from batch.errors import RateLimited

EndpointSpeed = Callable[[int], float]
"""Tokens per second of each request, as a function of the number served at once."""


class Server(Protocol):
    """What a client needs from a simulated server. Times passed to it never decrease."""

    def submit(self, name: int, tokens: float, now: float) -> bool:
        """Take a request that arrives; `False`: the server refuses it."""
        ...

    def next_end(self) -> float:
        """When the next request ends, if no other arrives; infinity: none ends."""
        ...

    def end(self, now: float) -> int:
        """End the request that ends now; return its name."""
        ...


class SharedServer:
    """Serves up to `slots` requests at once, all at the same speed, which depends on their number.

    Further requests wait in a queue, first come first served, or are refused if `queues` is false.
    """

    def __init__(self, speed: EndpointSpeed, *, slots: float = math.inf, queues: bool = True) -> None:
        self.speed = speed
        self.slots = slots
        self._queues = queues
        self._line: deque[tuple[int, float]] = deque()
        self._served: list[tuple[float, int]] = []
        self._done = self._as_of = 0.0

    def submit(self, name: int, tokens: float, now: float) -> bool:
        self._advance(now)
        if len(self._served) < self.slots:
            heapq.heappush(self._served, (self._done + tokens, name))
        elif self._queues:
            self._line.append((name, tokens))
        else:
            return False
        return True

    def next_end(self) -> float:
        if not self._served:
            return math.inf
        return self._as_of + (self._served[0][0] - self._done) / self.speed(len(self._served))

    def end(self, now: float) -> int:
        self._advance(now)
        name = heapq.heappop(self._served)[1]
        while self._line and len(self._served) < self.slots:
            waiting, tokens = self._line.popleft()
            heapq.heappush(self._served, (self._done + tokens, waiting))
        return name

    def _advance(self, now: float) -> None:
        """Give each request that is served the tokens of the time since the last call."""
        if self._served:
            self._done += (now - self._as_of) * self.speed(len(self._served))
        self._as_of = now


class RatedServer:
    """A server behind a token bucket of `burst` requests; a refusal takes no token."""

    def __init__(self, behind: Server, rate: float, burst: float) -> None:
        self.rate = rate
        self._behind = behind
        self._burst = self._level = burst
        self._as_of = 0.0

    def submit(self, name: int, tokens: float, now: float) -> bool:
        self._level = min(self._burst, self._level + (now - self._as_of) * self.rate)
        self._as_of = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return self._behind.submit(name, tokens, now)

    def next_end(self) -> float:
        return self._behind.next_end()

    def end(self, now: float) -> int:
        return self._behind.end(now)


def lognormal_tokens(mean: float, sigma: float, random: Random) -> Callable[[], float]:
    """Answer lengths in tokens; with sigma 0 they are all the same."""
    return lambda: random.lognormvariate(math.log(mean) - sigma * sigma / 2, sigma)


class Limits(Protocol):
    """The methods that `AdaptiveConcurrency` and `Concurrency` share."""

    in_flight: int

    def delay(self) -> float: ...
    def take(self) -> None: ...
    def release(self) -> None: ...
    def answered(self, tokens: int, started: float, now: float) -> None: ...
    def refused(self, started: float, now: float) -> bool | None: ...


@dataclass
class Run:
    """What a client got from its server."""

    ended: list[tuple[float, float]] = field(default_factory=list)
    """The time of each answer, and its tokens."""
    refused: list[float] = field(default_factory=list)

    def throughput(self, start: float, end: float) -> float:
        """Tokens per second of the answers given in this span."""
        return sum(tokens for at, tokens in self.ended if start <= at < end) / (end - start)

    def answers(self, start: float, end: float) -> int:
        """Answers given in this span."""
        return sum(start <= at < end for at, _ in self.ended)

    def refusals(self, start: float, end: float) -> int:
        """Requests refused in this span."""
        return sum(start <= at < end for at in self.refused)


NETWORK_SECONDS = 0.005
_ONE = LimitCost(1, 0, 0, 0)


class Client:
    """Sends as much as its limits allow, never runs out of rows, and pauses after refusals as an endpoint does.

    It does without asyncio, which would be too slow: a search over all concurrencies takes a hundred runs.
    """

    def __init__(self, server: Server, concurrency: Limits, tokens: Callable[[], float], seed: int = 1) -> None:
        self.run = Run()
        self.now = 0.0
        self.pace: AdaptiveRate | None = None
        self._server = server
        self._concurrency = concurrency
        self._tokens = tokens
        self._health = Health(self.clock, Random(seed))
        self._sent: list[tuple[float, float]] = []
        self._arriving: deque[tuple[float, int]] = deque()
        self._refused: deque[tuple[float, int]] = deque()

    def clock(self) -> float:
        """Now, on the simulated clock."""
        return self.now

    def until(self, end: float) -> Run:
        """Simulate up to this time."""
        while True:
            due = self._send()
            answer = self._server.next_end()
            arrival = self._arriving[0][0] if self._arriving else math.inf
            refusal = self._refused[0][0] if self._refused else math.inf
            soonest = max(self.now, min(due, answer, arrival, refusal))
            if soonest >= end:
                self.now = end
                return self.run
            self.now = soonest
            if arrival <= soonest:
                self._arrive(self._arriving.popleft()[1])
            elif refusal <= soonest:
                self._turned_away(self._refused.popleft()[1])
            elif answer <= soonest:
                self._answered(self._server.end(soonest))

    def _send(self) -> float:
        """Send what the limits allow now; return when to try again."""
        while self._concurrency.delay() == 0.0:
            wait = self._health.delay()
            if self.pace is not None:
                wait = max(wait, self.pace.delay(_ONE))
            if wait > 0:
                return self.now + max(wait, 0.001)
            self._concurrency.take()
            if self.pace is not None:
                self.pace.take(_ONE)
            self._arriving.append((self.now + NETWORK_SECONDS, len(self._sent)))
            self._sent.append((self.now, self._tokens()))
        return math.inf

    def _arrive(self, name: int) -> None:
        if not self._server.submit(name, self._sent[name][1], self.now):
            self.run.refused.append(self.now)
            self._refused.append((self.now + NETWORK_SECONDS, name))

    def _turned_away(self, name: int) -> None:
        started = self._sent[name][0]
        if self.pace is not None and self.pace.ignores_refusals:
            self._health.forget_throttles()
            self.pace.refused(started)
        else:
            explained = self._concurrency.refused(started, self.now)
            if self.pace is not None:
                self.pace.refused(started, explained=bool(explained))
        self._concurrency.release()
        self._health.failed(RateLimited("429"), started)

    def _answered(self, name: int) -> None:
        started, tokens = self._sent[name]
        self.run.ended.append((self.now, tokens))
        self._concurrency.release()
        self._health.answered()
        self._concurrency.answered(int(tokens), started, self.now)
