"""Rows that an endpoint refused, held until it is clear whether the row or the endpoint is at fault."""

import heapq
from collections.abc import Callable, Iterator

from batch.dispatch.endpoint import Endpoint
from batch.dispatch.judging.refusals import ACCOUNT_ROWS, REFUSED_ROWS, about_account, clearly_about_row
from batch.dispatch.request import Refusal, Request
from batch.errors import DispatchError

# A server may refuse a key or an account for a moment only, so the row is tried once more after this time.
SECOND_TRY_SECONDS = 1.0
# A refused key or spent credit is never the row's fault: one of several servers behind an address may not know the key
# yet. Such a row is tried this often, each time after twice as long.
_ACCOUNT_TRIES = 3
# While all endpoints that have not refused a row are busy, the row is offered to them again after this time, at most
# `_MOST_WAITS` times.
_LOOK_AGAIN_SECONDS = 1.0
_MOST_WAITS = 60


class RefusedRows:
    """Decides about the refused rows of one lane by how the same endpoints responded to other rows.

    - A row is at fault once an endpoint that refused it answers a request that was sent *later*. - An endpoint is at
    fault once it is out (see `Refusals`). The rows that it refused then go back to the lane: another
      endpoint answers them, or they stay unsent.
    - Until then a row is held. Its attempt is journaled as ended, so that a kill loses nothing.

    Attributes:
        count: rows that are held.
    """

    def __init__(
        self,
        endpoints: tuple[Endpoint, ...],
        *,
        attempted: Callable[[Request], None],
        give_up: Callable[[Request], None],
        send_again: Callable[[Request, float], None],
    ) -> None:
        """
        Args:
            attempted: journals that the attempt of `request.refusal` ended while the row goes on.
            give_up: ends the row as failed, with the error of `request.refusal`.
            send_again: gives the row out again after a number of seconds.
        """
        self._endpoints = endpoints
        self._attempted = attempted
        self._give_up = give_up
        self._send_again = send_again
        # The held rows of each endpoint, as a heap in the order in which they were sent.
        self._held: dict[int, list[tuple[int, int, Request]]] = {e.index: [] for e in endpoints}
        self._number = 0
        self.count = 0

    def refused(self, request: Request, endpoint: Endpoint, error: DispatchError, latency: float) -> None:
        """An endpoint refused this row: give it up, send it elsewhere, or hold it."""
        request.refusal = Refusal(error, endpoint.index, latency)
        request.refused |= 1 << endpoint.index
        request.avoid |= 1 << endpoint.index
        if endpoint.out:
            self._attempted(request)
            self._free(endpoint)
            self._place(request)
        elif self._proven(request, endpoint, error) and _tried_enough(request):
            self._give_up(request)
        else:
            self._attempted(request)
            self._place(request)

    def answered(self, endpoint: Endpoint, order: int) -> None:
        """The endpoint answered the request with number `order`, so rows sent before it and refused are at fault.

        A row that only this endpoint has refused may still be sent to another one.
        """
        held = self._held[endpoint.index]
        while held and held[0][0] < order:
            self.count -= 1
            request = heapq.heappop(held)[2]
            self._place(request)

    def settle(self) -> None:
        """The lane has only held rows left, so no further evidence will come: decide by what is known."""
        while self.count:
            before = self.count
            endpoint = next(e for e in self._endpoints if self._held[e.index])
            rows = list(self._take(endpoint))
            alike: dict[object, list[Request]] = {}
            for row in rows:
                alike.setdefault(_error(row).signature, []).append(row)
            if any(_is_out(endpoint, same) for same in alike.values()):
                endpoint.give_up(next(_error(same[0]) for same in alike.values() if _is_out(endpoint, same)))
                for row in rows:
                    self._place(row)
                if self.count < before:
                    return
                continue
            for row in rows:
                self._at_fault(row)

    def only_refusing_ready(self, request: Request) -> None:
        """Only endpoints that have refused the row were ready for it: offer it again later, hold it, or give it up."""
        request.waits += 1
        if self._elsewhere(request):
            self._send_again(request, _LOOK_AGAIN_SECONDS)
        else:
            self._place(request)

    def _place(self, request: Request) -> None:
        error = _error(request)
        left = [e for e in self._endpoints if not e.out]
        refusing = [e for e in left if request.refused >> e.index & 1]
        if not refusing or self._elsewhere(request):
            self._send_again(request, 0.0)
            return
        if any(self._proven(request, e, error) for e in refusing):
            self._at_fault(request)
            return
        self._number += 1
        self.count += 1
        heapq.heappush(self._held[refusing[-1].index], (request.order, self._number, request))

    def _proven(self, request: Request, endpoint: Endpoint, error: DispatchError) -> bool:
        """Is it known that the row is at fault, and that no other endpoint may answer it?"""
        if self._elsewhere(request):
            return False
        if endpoint.answers and clearly_about_row(error):
            return True
        return endpoint.last_answered > request.order

    def _elsewhere(self, request: Request) -> bool:
        """May another endpoint answer the row, soon?"""
        if _error(request).blame != "gone" or request.waits > _MOST_WAITS:
            return False
        return any(e.well and not request.refused >> e.index & 1 for e in self._endpoints)

    def _at_fault(self, request: Request) -> None:
        """The endpoint refuses the row and answers others: give it up, unless a refusal of the account may have
        passed.
        """
        if not _tried_enough(request):
            request.refused = request.waits = 0
            self._send_again(request, SECOND_TRY_SECONDS * 2**request.tried_again)
            request.tried_again += 1
        else:
            self._give_up(request)

    def _free(self, endpoint: Endpoint) -> None:
        for row in self._take(endpoint):
            self._place(row)

    def _take(self, endpoint: Endpoint) -> Iterator[Request]:
        held, self._held[endpoint.index] = self._held[endpoint.index], []
        self.count -= len(held)
        for _, _, row in sorted(held):
            yield row


def _error(request: Request) -> DispatchError:
    assert request.refusal is not None, "only refused rows are held"
    return request.refusal.error


def _tried_enough(request: Request) -> bool:
    """Was the row sent often enough for its kind of refusal?"""
    error = _error(request)
    return error.blame == "row" or request.tried_again >= (_ACCOUNT_TRIES if about_account(error) else 1)


def _is_out(endpoint: Endpoint, alike: list[Request]) -> bool:
    """Is the endpoint to be put out, given that it refused these rows alike and answered none since?"""
    error = _error(alike[0])
    if error.blame != "gone":
        return False
    enough = ACCOUNT_ROWS if about_account(error) else REFUSED_ROWS
    # Rows that were tried again had been found at fault before, and a good answer may have come since.
    refused = min(sum(not row.tried_again for row in alike), endpoint.refusals.count(error))
    return not endpoint.answers or refused >= enough
