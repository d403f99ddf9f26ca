"""Assigns kinds of rows to endpoints by a linear program.

If endpoints differ in which limit holds them back, it matters which rows they get: one that is held back by tokens
should get short rows, one that is held back by requests long ones. The best shares are the solution of a small linear
program over kinds of rows, solved now and then for the rows at hand. Each endpoint then takes kinds in these shares by
smooth weighted round-robin. With first come, first served, a pool of five endpoints that differ tenfold takes a fifth
longer.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from batch.dispatch.answer_lengths import kind_of
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.health import State
from batch.dispatch.request import LimitCost, Request, RowKind

_SOLVE_SECONDS = 5.0
# Answers after which an endpoint's latency is used.
_ENOUGH = 8
_FORGET = 0.99


class Latency:
    """Seconds that an answer takes by its tokens: a least-squares line through recent answers."""

    def __init__(self) -> None:
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def learn(self, tokens: float, seconds: float) -> None:
        """An answer of `tokens` tokens took `seconds`."""
        self._n = self._n * _FORGET + 1
        self._x = self._x * _FORGET + tokens
        self._y = self._y * _FORGET + seconds
        self._xx = self._xx * _FORGET + tokens * tokens
        self._xy = self._xy * _FORGET + tokens * seconds

    def seconds(self, tokens: float) -> float:
        """Seconds that an answer of `tokens` tokens is expected to take; 0.0 until enough were seen."""
        if self._n < _ENOUGH:
            return 0.0
        spread = self._xx - self._x * self._x / self._n
        slope = max(0.0, (self._xy - self._x * self._y / self._n) / spread) if spread > 1e-9 else 0.0
        return max(0.0, (self._y + slope * (tokens * self._n - self._x)) / self._n)


class LinearProgramAssigner:
    """Gives each endpoint of a pool kinds of rows in the shares with which the rows at hand are done first."""

    def __init__(self, endpoints: Sequence[Endpoint], cost_of: Callable[[RowKind], LimitCost]) -> None:
        """
        Args:
            cost_of: what a typical row of a kind takes from the limits, by what is known so far.
        """
        self._endpoints = endpoints
        self._cost_of = cost_of
        self._latency = {e.index: Latency() for e in endpoints}
        self._shares: dict[int, dict[RowKind, float]] = {}
        self._credit: dict[int, dict[RowKind, float]] = {e.index: {} for e in endpoints}
        self._solved_at = -math.inf

    def kind(self, request: Request) -> RowKind:
        return kind_of(request)

    def learn(self, endpoint: Endpoint, tokens: int, seconds: float) -> None:
        self._latency[endpoint.index].learn(tokens, seconds)

    def update_due(self, now: float) -> bool:
        return now - self._solved_at >= _SOLVE_SECONDS

    def update(self, at_hand: Mapping[RowKind, int], now: float) -> None:
        self._solved_at = now
        costs = {kind: self._cost_of(kind) for kind, rows in at_hand.items() if rows}
        self._shares = best_shares(self._endpoints, at_hand, costs, self._latency)

    def choose(self, endpoint: Endpoint, at_hand: Mapping[RowKind, int]) -> RowKind | None:
        shares = self._shares.get(endpoint.index)
        if not shares:
            return None
        credit = self._credit[endpoint.index]
        for kind, share in shares.items():
            credit[kind] = min(1.0, credit.get(kind, 0.0) + share)
        there = [kind for kind in shares if at_hand.get(kind)]
        if not there:
            return None
        chosen = max(there, key=credit.__getitem__)
        credit[chosen] -= 1.0
        return chosen


def best_shares(
    endpoints: Sequence[Endpoint],
    at_hand: Mapping[RowKind, int],
    cost_of: Mapping[RowKind, LimitCost],
    latency: Mapping[int, Latency],
) -> dict[int, dict[RowKind, float]]:
    """The shares of kinds, by endpoint index, with which the rows at hand are done first.

    The linear program: rows of kind `k` on endpoint `e` are `x[k, e] >= 0`, each kind's add up to those at hand, no
    limit of an endpoint is used for longer than `t`, and `t` is least. A limit is its seconds per row; requests in
    flight are one too, by the latency seen.
    """
    from scipy.optimize import linprog

    up = [e for e in endpoints if e.health.state is State.UP]
    kinds = list(cost_of)
    if len(up) < 2 or len(kinds) < 2:
        return {}
    costs = list(cost_of.values())
    uses = []
    for position, endpoint in enumerate(up):
        model = latency[endpoint.index]
        rows = [[limiter.seconds(cost) for cost in costs] for limiter in endpoint.limiters]
        rows.append([model.seconds(cost.expected) / endpoint.concurrency.allowed for cost in costs])
        for seconds in rows:
            use = np.zeros(len(kinds) * len(up) + 1)
            use[position : -1 : len(up)] = seconds
            use[-1] = -1.0
            uses.append(use)
    all_rows = np.zeros((len(kinds), len(kinds) * len(up) + 1))
    for k in range(len(kinds)):
        all_rows[k, k * len(up) : (k + 1) * len(up)] = 1.0
    goal = np.zeros(len(kinds) * len(up) + 1)
    goal[-1] = 1.0
    counts = [at_hand[kind] for kind in kinds]
    solved = linprog(goal, A_ub=np.array(uses), b_ub=np.zeros(len(uses)), A_eq=all_rows, b_eq=counts)
    if solved.x is None or solved.x[-1] <= 0.0:
        return {}
    rows_of = solved.x[:-1].reshape(len(kinds), len(up))
    shares = {}
    for position, endpoint in enumerate(up):
        total = rows_of[:, position].sum()
        if total > 0:
            shares[endpoint.index] = {
                kind: float(rows_of[k, position] / total) for k, kind in enumerate(kinds) if rows_of[k, position] > 0
            }
    return shares
