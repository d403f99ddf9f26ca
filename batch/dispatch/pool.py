"""The pool of one model's endpoints: the only place in the dispatcher that waits for capacity."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType

from batch.costs.bounds import unbounded_by
from batch.dispatch.balancing.balancers import Balancer
from batch.dispatch.budget import Budget, Pricing
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.health import State
from batch.dispatch.judging.failures import failed_again
from batch.dispatch.judging.patience import Patience, Wait
from batch.dispatch.request import Completion, Request
from batch.errors import BatchRouterError, DispatchError

_log = logging.getLogger("batchrouter.dispatch.pool")

# Progress shows a wait of at least this length with the time of its end.
_LONG_WAIT_SECONDS = 60.0
# Timers of an event loop may fire a little early; a shorter timer could fire again and again without waiting.
_SHORTEST_TIMER_SECONDS = 0.001


class PoolOut(BatchRouterError):
    """Every endpoint of the pool is out for the rest of the run."""


class PoolStopped(BatchRouterError):
    """The pool was stopped, so that it sends nothing more."""


class RowRefused(BatchRouterError):
    """Every endpoint that could take the row now has refused it before."""


class OverBudget(BatchRouterError):
    """The most that the request can cost is more than the budget has left."""


PickRow = Callable[[Request, Endpoint], Request]
"""Picks the row that goes to this endpoint: the one that was to be sent, or another one in its place."""


def _keep_row(request: Request, endpoint: Endpoint) -> Request:
    return request


@dataclass(slots=True, eq=False)
class _Waiter:
    request: Request
    pick_row: PickRow
    future: asyncio.Future[tuple[Endpoint, Request]]


class EndpointPool:
    """Leases endpoints to requests, first come, first served.

    `lease` filters (healthy, within limits, affordable), lets the balancer pick an endpoint and the caller pick the
    row, and only then takes both. When the lease ends, on success, error or cancellation, it gives the slot back,
    settles tokens and money, records the outcome and serves the next waiter.
    """

    def __init__(
        self,
        model: str,
        endpoints: Sequence[Endpoint],
        balancer: Balancer,
        *,
        patience: Patience,
        budget: Budget | None = None,
        pricing: Pricing | None = None,
    ) -> None:
        self.model = model
        self.endpoints = tuple(endpoints)
        self._balancer = balancer
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._over_budget = False
        self._order = 0
        self._troubled_since: float | None = None
        self.budget = budget
        self.pricing = pricing
        self._overrun = Decimal(1)
        """By what factor the dearest answer exceeded its bound; later bounds are multiplied by it."""
        if budget is not None:
            budget.on_release(self._serve)

    @property
    def allowed(self) -> int:
        """Requests that may be in flight at once now, over all endpoints that are not out."""
        allowed = 0
        for endpoint in self.endpoints:
            if not endpoint.out:
                allowed += int(endpoint.concurrency.allowed)
        return allowed

    @property
    def counts_tokens(self) -> bool:
        """Does any endpoint limit tokens?"""
        return any(endpoint.counts_tokens for endpoint in self.endpoints)

    @property
    def answers(self) -> int:
        """Good answers so far."""
        return sum(e.answers for e in self.endpoints)

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return sum(e.in_flight for e in self.endpoints)

    @property
    def waiting(self) -> int:
        """Requests that wait for an endpoint."""
        return len(self._waiters)

    def wait(self) -> Wait | None:
        """How long no endpoint may be sent a request; `None`: one may be sent one now, or is being probed."""
        left = [(e.health.delay(), e.index) for e in self.endpoints if not e.out]
        seconds, index = min(left, default=(0.0, 0))
        if not 0.0 < seconds < math.inf:
            return None
        first = self.endpoints[index]
        return Wait(seconds, f"{first.url}: {first.health.reason}")

    def waits_for(self) -> str | None:
        """What the first waiting request waits for, with the server's words; `None`: no request waits."""
        if not self._waiters:
            return None
        wait = self.wait()
        if wait is not None and wait.seconds >= _LONG_WAIT_SECONDS:
            return f"{self._patience.moment(wait.seconds)}: {wait.words}"
        if wait is not None:
            return f"cooldown of {wait.words}"
        if all(e.health.delay() > 0 for e in self.endpoints):
            return "cooldown"
        if all(e.concurrency.delay() > 0 for e in self.endpoints):
            return "answers"
        return "limits"

    def affords(self, request: Request) -> bool:
        """Has the budget room now for the most that the row can cost?"""
        if self.budget is None:
            return True
        bound = self._known_bound(request)
        return bound is not None and self.budget.fits(bound)

    def lease(self, request: Request, pick_row: PickRow = _keep_row) -> "Lease":
        """Lease an endpoint for one attempt: `async with pool.lease(request) as lease`.

        Raises on entry PoolOut, PoolUnreachable, PoolStopped, RowRefused or OverBudget; nothing is held then.

        Args:
            pick_row: may send another row in place of `request`, once the endpoint is picked. That row must fit into
                the endpoint's limits and the budget.
        """
        return Lease(self, request, pick_row)

    async def acquire(self, request: Request, pick_row: PickRow = _keep_row) -> tuple[Endpoint, Request]:
        """Wait for an endpoint and take it, for the row that is picked. Cancelled while waiting, nothing is held."""
        if not self._waiters:
            taken = self.take(request, pick_row)
            if taken is not None:
                return taken
            # A single waiter is only re-checked when a timer fires. Without this check it would wait forever for a pool
            # that is down.
            self._check_patience(request)
        waiter = _Waiter(request, pick_row, self._loop.create_future())
        self._waiters.append(waiter)
        self._set_timer()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                # It was served and cancelled within one turn of the loop, so the endpoint is given back unused.
                endpoint, request = waiter.future.result()
                endpoint.abandoned(request)
                self._unreserve(request)
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            self._serve()
            raise

    def release(self, request: Request, endpoint: Endpoint, ended: Completion | DispatchError | None) -> None:
        """Give back what `acquire` took, and record how the attempt ended.

        Args:
            ended: the answer or the error; `None`: the attempt was cancelled, and may have been billed.
        """
        if isinstance(ended, Completion):
            self._troubled_since = None
            endpoint.answered(request, ended)
            if self.budget is not None:
                self._settle(request, (ended.prompt_tokens, ended.completion_tokens))
        elif ended is None:
            endpoint.abandoned(request)
            self._settle(request, None)
        else:
            if self._troubled_since is None:
                self._troubled_since = self._loop.time()
            of_row = ended.blame == "endpoint" and failed_again(request, ended, endpoint, self.answers)
            endpoint.failed(request, ended, of_row=of_row)
            if ended.billed:
                self._settle(request, ended.usage)
            else:
                self._unreserve(request)
        if self._waiters:
            self._serve()

    def stop(self) -> None:
        """Lease nothing more, and end all waits with PoolStopped: a limit could make them last for hours."""
        self._stopped = True
        self._serve()

    def take(self, request: Request, pick_row: PickRow = _keep_row) -> tuple[Endpoint, Request] | None:
        """Pick an endpoint and a row, then take both; `None` if nothing can be taken now. Raises as `lease` does."""
        endpoint = self._pick_endpoint(request)
        if endpoint is None:
            return None
        request = pick_row(request, endpoint)
        self._order += 1
        request.order = self._order
        endpoint.start(request)
        if self.budget is not None:
            request.reserved = self._bound(request)
            self.budget.reserve(request.reserved)
        return endpoint, request

    def _pick_endpoint(self, request: Request) -> Endpoint | None:
        """The endpoint for an attempt at `request`; `None` if none can take it now. Nothing is taken yet."""
        if self._stopped:
            raise PoolStopped(f"model {self.model!r}: nothing more is sent")
        cost = request.cost
        ready = [e for e in self.endpoints if e.delay(cost) <= 0.0]
        if not ready:
            if all(e.out for e in self.endpoints):
                raise PoolOut(f"model {self.model!r}: {'; '.join(sorted({e.health.reason for e in self.endpoints}))}")
            return None
        if request.refused:
            ready = [e for e in ready if not request.refused >> e.index & 1]
            if not ready:
                # If this row waited at the head of the line, it would block rows that these endpoints can take.
                raise RowRefused(f"model {self.model!r}: the endpoints that are ready have refused the row")
        if self.budget is not None and not self._affordable(request):
            return None
        if request.avoid and len(ready) > 1:
            ready = [e for e in ready if not request.avoid >> e.index & 1] or ready
        return self._balancer.pick(request, ready) if len(ready) > 1 else ready[0]

    def _serve(self) -> None:
        """Give endpoints to waiters, first come, first served, until no endpoint is ready."""
        while self._waiters:
            waiter = self._next_waiter()
            if waiter.future.done():
                continue
            try:
                taken = self.take(waiter.request, waiter.pick_row)
                if taken is None:
                    self._waiters.appendleft(waiter)
                    self._check_patience(waiter.request)
                    break
            except BatchRouterError as error:
                if self._waiters and self._waiters[0] is waiter:
                    self._waiters.popleft()
                waiter.future.set_exception(error)
            else:
                waiter.future.set_result(taken)
        self._set_timer()

    def _next_waiter(self) -> _Waiter:
        """Take the next waiter off the line: the first, or, if every endpoint is down, the one whose row failed least.

        A row that fails everywhere would otherwise be the probe again and again, and keep endpoints down that answer
        all other rows.
        """
        if len(self._waiters) > 1 and all(e.out or e.health.state is not State.UP for e in self.endpoints):
            best = min(self._waiters, key=lambda waiter: waiter.request.attempts)
            self._waiters.remove(best)
            return best
        return self._waiters.popleft()

    def _set_timer(self) -> None:
        """Set a timer that serves the waiters again when the first endpoint can take the first of them."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters:
            cost = self._waiters[0].request.cost
            soonest = min(e.delay(cost) for e in self.endpoints)
            if soonest is not math.inf:
                self._timer = self._loop.call_later(max(soonest, _SHORTEST_TIMER_SECONDS), self._serve)

    def _check_patience(self, request: Request) -> None:
        """Raise PoolUnreachable if the endpoints have failed, or ask for a pause, for longer than the job allows."""
        self._patience.look(self.model, self.endpoints, request.cost, self._troubled_since)

    def _affordable(self, request: Request) -> bool:
        assert self.budget is not None
        bound = self._bound(request)
        if self.budget.fits(bound):
            return True
        if self.budget.never_fits(bound) or self.budget.reserved == 0:
            left = self.budget.cap - self.budget.spent
            if not self._over_budget:
                self._over_budget = True
                _log.warning("%s: rows no longer fit into the $%.6f that the budget has left", self.model, left)
            raise OverBudget(f"up to ${bound:.6f} does not fit into the ${left:.6f} left")
        return False

    def _bound(self, request: Request) -> Decimal:
        bound = self._known_bound(request)
        if bound is None:
            reason = unbounded_by(request.url, request.body, request.max_tokens) or "the price of so long a prompt"
            raise OverBudget(
                f"what this row may cost has no upper bound ({reason}): under a budget a row needs max_tokens, "
                "a known price and nothing but text"
            )
        return bound

    def _known_bound(self, request: Request) -> Decimal | None:
        """The most that an attempt at the row can cost at this model; `None`: nothing bounds it.

        The bound is computed once for each model that a row is sent to, and kept in the row.
        """
        if request.bound is None or request.bound[0] != self.model:
            request.bound = (self.model, self.pricing.bound(request) if self.pricing is not None else None)
        bound = request.bound[1]
        return None if bound is None else bound * self._overrun

    def _settle(self, request: Request, usage: tuple[int | None, int | None] | None) -> None:
        """Charge the budget for an attempt that was or may have been billed: its usage if known, else its bound."""
        if self.budget is None:
            return
        used = self.pricing.cost(*usage) if usage is not None and self.pricing is not None else None
        self.budget.settle(request.reserved, request.reserved if used is None else used)
        if used is not None and used > request.reserved > 0:
            # This server bills more than `max_tokens` (reasoning, a prompt of its own), so its bounds do not hold.
            self._overrun = max(self._overrun, self._overrun * used / request.reserved)

    def _unreserve(self, request: Request) -> None:
        if self.budget is not None:
            self.budget.settle(request.reserved, Decimal(0))

    def __repr__(self) -> str:
        return f"EndpointPool({len(self.endpoints)} endpoints, {self.in_flight} in flight, {self.waiting} waiting)"


class Lease:
    """An endpoint held for one attempt.

    Call `completed` after a good answer; a DispatchError that leaves the block is recorded as the end of the attempt.
    """

    __slots__ = ("_ended", "_pick_row", "_pool", "endpoint", "request")

    endpoint: Endpoint
    request: Request
    """The row to send: the one that the lease was asked for, or the one that `pick_row` put in its place."""

    def __init__(self, pool: EndpointPool, request: Request, pick_row: PickRow) -> None:
        self._pool = pool
        self._pick_row = pick_row
        self.request = request
        self._ended: Completion | None = None

    def completed(self, completion: Completion) -> None:
        """The attempt ended well."""
        self._ended = completion

    async def __aenter__(self) -> "Lease":
        pool = self._pool
        # Most of the time no request waits, and an endpoint can be taken without the cost of a coroutine.
        taken = None if pool.waiting else pool.take(self.request, self._pick_row)
        self.endpoint, self.request = taken or await pool.acquire(self.request, self._pick_row)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = error if isinstance(error, DispatchError) else self._ended
        self._pool.release(self.request, self.endpoint, ended)
