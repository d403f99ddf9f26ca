"""Five endpoints that differ tenfold in every respect: how long 20,000 rows take, compared with a lower bound."""

import asyncio
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random

import numpy as np
import pytest
from scipy.optimize import linprog

from batch.dispatch.budget import Budget, Pricing
from batch.dispatch.dispatcher import Dispatcher
from batch.dispatch.endpoint import Endpoint
from batch.dispatch.request import Completion, Request, RowKind
from schemas.endpoints import EndpointSpec, LimitsSpec
from schemas.job import DispatchSpec
from tests.fakes import answer
from tests.simulation.pools import Row, Server, answering, simulate

# Requests a minute, tokens a minute, requests in flight, seconds of an answer, and seconds for each of its tokens.
ENDPOINTS = (
    (1000, 1_000_000, 8, 0.2, 0.004),
    (100, 100_000, 80, 2.0, 0.04),
    (316, 60_000, 25, 0.6, 0.012),
    (600, 300_000, 40, 1.0, 0.02),
    (180, 500_000, 16, 0.4, 0.008),
)
# Labels, extractions, essays, conversations: `max_tokens`, and mu and sigma of the prompt's lognormal length.
TASKS = ((16, 3.5, 0.5), (128, 5.0, 0.8), (512, 6.5, 0.6), (1024, 4.5, 0.9))


def rows_of_four_tasks(count: int) -> list[Row]:
    """Rows of four tasks; an answer takes about four sevenths of its `max_tokens`."""
    random = Random(3)
    rows = []
    for _ in range(count):
        most, mu, sigma = TASKS[random.randrange(4)]
        prompt = max(5, int(random.lognormvariate(mu, sigma)))
        rows.append(Row(prompt, max(1, min(most, int(most * random.betavariate(4, 3)))), most))
    return rows


def servers() -> list[Server]:
    return [
        Server(
            EndpointSpec(url=f"http://e{i}/v1", model="m", limits=LimitsSpec(rpm=rpm, tpm=tpm, max_in_flight=slots)),
            answering(fixed, per_token),
        )
        for i, (rpm, tpm, slots, fixed, per_token) in enumerate(ENDPOINTS)
    ]


def bound(rows: Sequence[Row]) -> float:
    """The least seconds in which the rows can be done: a linear program over kinds of rows and endpoints.

    A kind is what is known of a row before it is sent: its `max_tokens`, and its prompt's length within a factor of
    1.4. A kind counts with its mean answer, since the length of one answer is not known beforehand.
    """
    kinds: Counter[tuple[int, int]] = Counter()
    prompts: Counter[tuple[int, int]] = Counter()
    answers: Counter[tuple[int, int]] = Counter()
    for row in rows:
        kind = (row.max_tokens, round(2 * math.log2(row.prompt)))
        kinds[kind] += 1
        prompts[kind] += row.prompt
        answers[kind] += row.answer
    count, width = len(kinds), len(ENDPOINTS)
    uses = []
    for e, (rpm, tpm, slots, fixed, per_token) in enumerate(ENDPOINTS):
        requests = [60 / rpm] * count
        tokens = [60 / tpm * (prompts[k] + answers[k]) / kinds[k] for k in kinds]
        latency = [(fixed + per_token * answers[k] / kinds[k]) / slots for k in kinds]
        for seconds in (requests, tokens, latency):
            use = np.zeros(count * width + 1)
            use[e:-1:width] = seconds
            use[-1] = -1
            uses.append(use)
    whole = np.zeros((count, count * width + 1))
    for k in range(count):
        whole[k, k * width : (k + 1) * width] = 1
    goal = np.zeros(count * width + 1)
    goal[-1] = 1
    solved = linprog(goal, A_ub=np.array(uses), b_ub=np.zeros(len(uses)), A_eq=whole, b_eq=list(kinds.values()))
    return float(solved.x[-1])


def test_no_order_of_rows_would_be_much_faster() -> None:
    """The makespan is at most 1.03 times the linear program's bound, plus one long answer."""
    rows = rows_of_four_tasks(20_000)
    pool = servers()
    outcome = simulate({"m": pool}, {"m": rows})
    assert len(outcome.work.outcomes) == len(rows)
    latencies = sorted(seen.ended - seen.started for server in pool for seen in server.seen)
    p99 = latencies[int(0.99 * len(latencies))]
    assert outcome.seconds <= 1.03 * bound(rows) + p99


def test_each_endpoint_sees_its_limits_and_no_more() -> None:
    """In any minute each endpoint gets no more requests than allowed, and at no time more in flight.

    Tokens may exceed their limit by 512 for each request that may be in flight, here up to 41 % of it: until an
    answer ends, only its expected length is charged.
    """
    rows = rows_of_four_tasks(8_000)
    pool = servers()
    simulate({"m": pool}, {"m": rows})
    for server, (rpm, tpm, slots, _, _) in zip(pool, ENDPOINTS, strict=True):
        starts = sorted((seen.started, seen.tokens) for seen in server.seen)
        first = tokens = 0
        for last, (at, cost) in enumerate(starts):
            tokens += cost
            while starts[first][0] <= at - 60:
                tokens -= starts[first][1]
                first += 1
            assert last - first + 1 <= rpm
            assert tokens <= tpm + slots * 1024 * 0.5
        edges = sorted([(s.started, 1) for s in server.seen] + [(s.ended, -1) for s in server.seen])
        assert max(np.cumsum([step for _, step in edges])) <= slots


def test_the_last_rows_do_not_wait_for_one_long_answer() -> None:
    """One answer in a hundred takes fifty times as long, and its row's max_tokens shows it.

    The last hundredth of the rows then takes at most a twentieth of the time.
    """
    random = Random(5)
    rows = [Row(50, 2000, 2000) if random.random() < 0.01 else Row(50, 40, 40) for _ in range(6000)]
    spec = EndpointSpec(url="http://e/v1", model="m", limits=LimitsSpec(max_in_flight=32))
    pool = [Server(spec, answering(0.1, 0.02))]
    outcome = simulate({"m": pool}, {"m": rows})
    ends = sorted(seen.ended for seen in pool[0].seen)
    assert outcome.seconds - ends[int(0.99 * len(ends))] <= 0.05 * outcome.seconds


def test_a_standstill_of_one_model_leaves_the_others_alone() -> None:
    """One pool answers nothing, with a hundred times more rows waiting for it than are read ahead.

    The other model's rate does not change.
    """

    def rate(stuck: bool) -> tuple[float, int]:
        seconds = {"a": 1e6 if stuck else 0.5, "b": 0.5}
        pools = {
            model: [
                Server(
                    EndpointSpec(url=f"http://{model}/v1", model=model, limits=LimitsSpec(rpm=600, max_in_flight=16)),
                    answering(seconds[model], 0.0),
                )
            ]
            for model in ("a", "b")
        }
        rows = {model: [Row(10, 5, 10)] * 51_200 for model in ("a", "b")}
        outcome = simulate(pools, rows, also=lambda d: asyncio.get_running_loop().call_later(300, d.drain))
        assert outcome.end.interrupted
        return pools["b"][0].rate(0, 300), outcome.work.batches_read

    free, _ = rate(stuck=False)
    beside, read = rate(stuck=True)
    assert beside == free >= 0.98 * 10
    assert read <= 2 * math.ceil(1024 / 512 + 1) + math.ceil(3000 / 512)


class DearestFirst:
    """Assigns to every endpoint the row that may cost most."""

    def __init__(self, endpoints: Sequence[Endpoint], cost_of: object) -> None:
        pass

    def kind(self, request: Request) -> RowKind:
        return request.max_tokens or 0, 0

    def update_due(self, now: float) -> bool:
        return False

    def update(self, at_hand: Mapping[RowKind, int], now: float) -> None:
        pass

    def choose(self, endpoint: Endpoint, at_hand: Mapping[RowKind, int]) -> RowKind | None:
        return max((kind for kind, rows in at_hand.items() if rows), default=None)

    def learn(self, endpoint: Endpoint, tokens: int, seconds: float) -> None:
        pass


def test_choosing_rows_overshoots_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dollars reserved and spent stay within the budget at every request.

    The row that is chosen may cost a hundred times the one whose turn it was.
    """
    monkeypatch.setattr("batch.dispatch.dispatcher.LinearProgramAssigner", DearestFirst)
    cap = Decimal("60.5")
    most: list[Decimal] = []
    budgets: list[Budget] = []

    async def behave(server: Server, row: Row) -> Completion:
        most.append(budgets[0].spent + budgets[0].reserved)
        await asyncio.sleep(0.5)
        return answer(row.prompt, row.answer)

    pool = [
        Server(EndpointSpec(url=f"http://e{i}/v1", model="m", limits=LimitsSpec(max_in_flight=slots)), behave)
        for i, slots in enumerate((4, 5))
    ]
    rows = [Row(20, 1000, 1000) if row % 10 == 9 else Row(20, 10, 10) for row in range(5000)]

    def look(dispatcher: Dispatcher) -> None:
        budget = dispatcher.lanes["m"].pool.budget
        assert budget is not None
        budgets.append(budget)

    by_token = Pricing(
        bound=lambda request: Decimal(request.max_tokens or 0) / 1000,
        cost=lambda prompt, completion: Decimal(completion or 0) / 1000,
    )
    simulate({"m": pool}, {"m": rows}, spec=DispatchSpec(budget_usd=cap), also=look, pricing={"m": by_token})
    assert cap - 1 <= max(most) <= cap
