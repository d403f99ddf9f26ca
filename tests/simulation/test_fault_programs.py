"""Random programs of faults, run by the real dispatcher in virtual time, with claims on the outcome of every row.

With `FAULT_PROGRAMS=300` in the environment three hundred of them run; the default is fewer, to keep a check fast.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import orjson
from hypothesis import HealthCheck, event, given, settings
from hypothesis import Phase as Steps
from hypothesis import strategies as st

from batch.dispatch.budget import Pricing
from batch.dispatch.dispatcher import DispatchEnd, Dispatcher
from batch.dispatch.judging.refusals import REFUSED_ROWS
from batch.dispatch.request import Completion, Request
from batch.dispatch.transports.refusals import refusal
from batch.dispatch.transports.responses import completion
from batch.errors import ConnectionLost, NotConnected, TimedOut
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.job import DispatchSpec
from tests.dispatch.built import built
from tests.dispatch.memory_work import MemoryWork
from tests.virtual_time import run

PROGRAMS = int(os.environ.get("FAULT_PROGRAMS", "40"))

TIMEOUT = 60.0
LONGEST_WAIT = 2 * 3600.0
PRICE = Decimal("0.01")
# For one request: ten prompt tokens, and an answer of at most ten tokens that has five.
BOUND, COST = 20 * PRICE, 15 * PRICE
ANSWER = orjson.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "yes"}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }
)


@dataclass(frozen=True)
class Fault:
    """What an endpoint does with a request other than answer it."""

    kind: str
    """`status`, `unreadable`, `drop`, `refuse` (no connection) or `hang`."""
    status: int = 500
    body: bytes = b""
    retry_after: float | None = None

    @property
    def billed(self) -> bool:
        """Whether the server bills the request all the same, since it may have finished it."""
        return self.kind in ("unreadable", "drop", "hang") or self.status in (502, 504)


@dataclass(frozen=True)
class Phase:
    """How an endpoint behaves for a number of seconds."""

    seconds: float
    fault: Fault | None
    """`None`: the endpoint answers."""
    delay: float


@dataclass(frozen=True)
class Program:
    """A pool, its rows, and everything that goes wrong."""

    rows: int
    endpoints: tuple[tuple[Phase, ...], ...]
    """The phases of each endpoint; the last one goes on without end."""
    bad_rows: Mapping[int, Fault]
    """Rows with a fault of their own, at every endpoint that answers other rows."""
    max_in_flight: int | None
    max_attempts: int
    budget: Decimal | None


@dataclass
class Seen:
    """What the servers saw, and what they billed."""

    requests: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    bill: Decimal = Decimal(0)
    most_billed: Decimal = Decimal(0)
    answered: set[int] = field(default_factory=set)


def _error(code: str | None, message: str) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "x", "code": code}})


# Faults of a row, and faults of an account, which refusals of two rows at the end of an input already suggest.
OF_ROW = [b"", b"<html>no</html>", _error(None, "no"), _error("unsupported", "no")]
OF_ANY = [*OF_ROW, _error("invalid_api_key", "no")]


def statuses(*codes: int, bodies: Sequence[bytes] = OF_ANY) -> st.SearchStrategy[Fault]:
    return st.builds(Fault, st.just("status"), st.sampled_from(codes), st.sampled_from(bodies))


THROTTLES = st.builds(
    Fault,
    st.just("status"),
    st.sampled_from([429, 503, 529]),
    st.just(b""),
    st.sampled_from([None, 0.0, 1.0, 30.0, 600.0, 10 * 3600.0]),
)
PASSING = st.one_of(
    statuses(408, 500, 502, 503, 504),
    THROTTLES,
    st.builds(Fault, st.sampled_from(["unreadable", "drop", "refuse", "hang"])),
)
REFUSALS = statuses(400, 401, 402, 403, 404, 413, 422)
DELAYS = st.sampled_from([0.0, 0.01, 0.5, 20.0])
PHASES = st.builds(Phase, st.sampled_from([0.1, 5.0, 60.0, 900.0]), st.none() | PASSING | REFUSALS, DELAYS)
LAST = st.builds(Phase, st.just(1e9), st.none() | PASSING | REFUSALS, DELAYS)
WELL = st.builds(Phase, st.just(1e9), st.none(), st.sampled_from([0.0, 0.01, 0.5]))
ALWAYS_FAILING = st.builds(Fault, st.sampled_from(["unreadable", "drop"]))
BAD_ROWS = statuses(400, 403, 404, 413, 422, 500, bodies=OF_ROW) | ALWAYS_FAILING


@st.composite
def programs(draw: st.DrawFn) -> Program:
    rows = draw(st.sampled_from([1, 2, 7, 30, 120]))
    faulty = st.tuples(PHASES, PHASES, LAST) | st.tuples(PHASES, WELL) | st.tuples(LAST)
    endpoints = draw(st.lists(st.tuples(WELL) | faulty, min_size=1, max_size=3))
    bad = draw(st.dictionaries(st.integers(0, rows - 1), BAD_ROWS, max_size=min(rows, REFUSED_ROWS - 1)))
    return Program(
        rows,
        tuple(endpoints),
        bad,
        draw(st.sampled_from([None, 1, 4, 50])),
        draw(st.integers(1, 6)),
        draw(st.none() | st.sampled_from([BOUND, 5 * BOUND, 1000 * BOUND])),
    )


async def _dispatch(program: Program, work: MemoryWork, seen: Seen) -> tuple[DispatchEnd, Dispatcher, float]:
    loop = asyncio.get_running_loop()
    began = loop.time()

    def phase(phases: Sequence[Phase]) -> Phase:
        at = loop.time() - began
        for each in phases:
            if at < each.seconds:
                return each
            at -= each.seconds
        return phases[-1]

    async def server(request: Request, endpoint: EndpointSpec) -> Completion:
        index = int(str(endpoint.url)[8])
        now = phase(program.endpoints[index])
        fault = now.fault or program.bad_rows.get(request.row)
        seen.requests[request.row] += 1
        seen.sent += 1
        if fault is not None and fault.kind == "refuse":
            raise NotConnected("no connection")
        if fault is None or fault.billed:
            seen.bill += COST
        await asyncio.sleep(TIMEOUT if fault is not None and fault.kind == "hang" else now.delay)
        return _answer(fault, request, index, seen)

    limits = LimitsSpec(max_in_flight=program.max_in_flight)
    endpoints = tuple(
        EndpointSpec(url=f"http://e{i}/v1", model="m", limits=limits) for i in range(len(program.endpoints))
    )
    spec = DispatchSpec(
        max_attempts=program.max_attempts,
        timeout_seconds=TIMEOUT,
        longest_wait=LONGEST_WAIT,
        budget_usd=program.budget,
    )
    pricing = Pricing(
        lambda request: BOUND,
        lambda prompt, answer: None if prompt is None or answer is None else (prompt + answer) * PRICE,
    )
    sending = built(work, server, [ModelSpec(name="m", endpoints=endpoints)], spec, pricing={"m": pricing})
    sending.feed(0)
    sending.close_feed()
    async with asyncio.timeout(_bound(program)):
        end = await sending.run()
    return end, sending, loop.time() - began


def _answer(fault: Fault | None, request: Request, index: int, seen: Seen) -> Completion:
    """What the real transport makes of the server's bytes."""
    if fault is None:
        seen.answered.add(index)
        return completion(ANSWER, request.url)
    match fault.kind:
        case "drop":
            raise ConnectionLost("the connection broke before the answer was whole")
        case "hang":
            raise TimedOut("no whole answer")
        case "unreadable":
            return completion(b"<html>maintenance</html>", request.url)
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    raise refusal(fault.status, fault.body, headers.get, "openai", lambda: 0.0)


def _bound(program: Program) -> float:
    """Seconds within which the run must end: its endpoints' phases and cooldowns, and all attempts of its rows."""
    phases = sum(phase.seconds for phases in program.endpoints for phase in phases if phase.seconds < 1e9)
    # Each attempt of a row ends within the timeout, and a pause or a cooldown follows it.
    attempts = program.rows * program.max_attempts * (TIMEOUT + 60.0)
    return phases + 4 * LONGEST_WAIT + attempts


@settings(
    max_examples=PROGRAMS,
    deadline=None,
    derandomize=True,
    # Shrinking a program that never ends takes minutes, and a whole one is as easy to read.
    phases=[Steps.explicit, Steps.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@given(programs())
def test_whatever_goes_wrong_the_run_ends_and_each_row_has_one_outcome(program: Program) -> None:
    """The run ends within its bound, and every row has exactly one outcome or is left for the next sitting.

    The bill never exceeds the budget, and an endpoint that answers is never taken out.
    """
    work = MemoryWork({(0, "m"): list(range(program.rows))}, max_tokens=10)
    seen = Seen()
    end, sending, seconds = run(_dispatch(program, work, seen))
    lane = sending.lanes["m"]
    # MemoryJournal refuses a second outcome of a row.
    assert len(work.outcomes) + lane.open == program.rows
    assert lane.open == 0 or end.stalled
    assert not end.interrupted
    if program.budget is not None:
        assert seen.bill <= program.budget
    # A row whose endpoint asks for a pause of one second each time is sent again every second.
    assert max(seen.requests.values(), default=0) <= 40 * program.max_attempts + seconds
    event("stalled" if end.stalled else "ended")

    always_well = [i for i, phases in enumerate(program.endpoints) if all(phase.fault is None for phase in phases)]
    # An endpoint that got only bad rows answered none of them, so it looks like one that refuses everything.
    for index in set(always_well) & seen.answered:
        assert not lane.pool.endpoints[index].out, end.notes
    for outcome in work.outcomes.values():
        assert outcome.status == "ok" or (outcome.error is not None and outcome.error.message)
    if seen.answered & set(always_well) and program.budget is None:
        assert not end.stalled, end.stalled
        good = [row for row in range(program.rows) if row not in program.bad_rows]
        only_well = len(always_well) == len(program.endpoints)
        if only_well:
            assert {work.outcomes[row].status for row in good} <= {"ok"}
        if only_well and seen.answered == set(always_well):
            assert {work.outcomes[row].status for row in program.bad_rows} <= {"failed"}
