"""Endpoints that refuse, fail or die while other endpoints of the same model go on."""

import signal
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import BATCHROUTER, Batch, Client, litellm
from benchmarks.limits.comparison import compare, observe
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.behaviour import Behaviour, Outage, RefuseOnce
from benchmarks.limits.servers.processes import Server, aiohttp_servers, endpoint_specs
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent, show
from schemas.endpoints import LimitsSpec

RETRY_AFTER_SECONDS = 90
SLOTS = 8
# Requests that arrive this soon after a refusal were already sent, so they are not counted against the client.
_IN_TRANSIT_SECONDS = 0.2
# The benchmark checks the time at intervals, and a stopped process does not log when it was stopped.
_CLOCK_TOLERANCE_SECONDS = 0.3

# Share of requests that fail, and the most requests per accepted one that is the target.
FAULT_SHARES = ((0.01, 1.02), (0.20, 1.30))
# With six attempts, one row in 15,000 would fail by chance when one attempt in five fails.
ATTEMPTS = 10

DYING_RUN_SECONDS = 60
# When the endpoint stops and returns, as shares of the run.
STOPS_AT_SHARE = 0.3
RETURNS_AT_SHARE = 0.6
_ANSWER_SECONDS = 0.2
_TIMEOUT_SECONDS = 5.0
# An endpoint's rate is measured over spans of this length.
_RATE_SPAN_SECONDS = 3.0

FailureMode = Literal["reset", "503", "hang"]


def case_retry_after(settings: Settings) -> None:
    """One of two endpoints answers 429 with Retry-After: 90, once."""
    wait = settings.scaled(RETRY_AFTER_SECONDS)
    server = Behaviour(slots=SLOTS, seconds=0.4)
    refusing = server.model_copy(update={"refuse_once": RefuseOnce(request=60, retry_after=wait)})

    def should_stop(servers: Sequence[Server]) -> bool:
        return servers[0].age() > 60 * server.seconds / SLOTS + wait + 10

    clients = settings.chosen([BATCHROUTER, litellm(2 * SLOTS)])
    logs = observe(
        clients,
        lambda: aiohttp_servers(refusing, server),
        lambda servers: Batch(endpoints=endpoint_specs(servers, LimitsSpec(max_in_flight=SLOTS)), rows=100_000),
        should_stop=should_stop,
        at_once=True,
    )
    show(
        f"Retry-After: {wait}, sent once by one of two endpoints",
        f"this endpoint gets no requests for {wait} s, the other goes on",
        [(client.name, _retry_after_columns(log, wait)) for client, log in zip(clients, logs, strict=True)],
    )


def _retry_after_columns(log: Sequence[LoggedRequest], wait: float) -> dict[str, str]:
    refusal = next(request for request in log if request.status == 429)
    other = [request for request in log if request.server != refusal.server]
    arrivals_after = [
        request.arrived
        for request in log
        if request.server == refusal.server and request.arrived > refusal.ended + _IN_TRANSIT_SECONDS
    ]
    rate_before = figures.answers_per_second(other, log[0].arrived + 1, refusal.ended)
    rate_after = figures.answers_per_second(other, refusal.ended, refusal.ended + wait)
    return {
        "no requests for": f"{arrivals_after[0] - refusal.ended:.1f} s" if arrivals_after else "the rest",
        "requests in the wait": f"{sum(arrived < refusal.ended + wait for arrived in arrivals_after)}",
        "the other's rate": percent(rate_after / rate_before),
    }


def case_faults(settings: Settings) -> None:
    """Two endpoints answer 1 %, then 20 % of requests, drawn at random, with 500."""
    for share, most_per_accepted in FAULT_SHARES:
        clients = settings.chosen([BATCHROUTER, litellm(4 * SLOTS)])
        _compare_with_faults(settings.scaled(2000), share, most_per_accepted, clients)


def _compare_with_faults(rows: int, share: float, most_per_accepted: float, clients: Sequence[Client]) -> None:
    behaviours = [Behaviour(slots=2 * SLOTS, fault_share=share, seed=seed) for seed in (1, 2)]
    limits = LimitsSpec(max_in_flight=2 * SLOTS)
    logs = observe(
        clients,
        lambda: aiohttp_servers(*behaviours),
        lambda servers: Batch(endpoints=endpoint_specs(servers, limits), rows=rows, attempts=ATTEMPTS),
    )
    compare(
        f"{percent(share)} random 500s at two endpoints, {rows:,} rows of {ATTEMPTS} attempts at most",
        f"sent / accepted <= {most_per_accepted}, no row lost",
        clients,
        logs,
        lambda log: {
            "sent / accepted": f"{len(log) / len(figures.accepted(log)):.3f}",
            "rows lost": f"{figures.rows_lost(log, rows)}",
        },
    )


def case_dying(settings: Settings) -> None:
    """One of three endpoints stops at 30 % of the run and returns at 60 %."""
    modes: tuple[FailureMode, ...] = ("reset", "503", "hang")
    for mode in modes:
        _compare_with_outage(settings, mode)


def _compare_with_outage(settings: Settings, mode: FailureMode) -> None:
    length = settings.scaled(DYING_RUN_SECONDS)
    stops_at, returns_at = STOPS_AT_SHARE * length, RETURNS_AT_SHARE * length
    server = Behaviour(slots=SLOTS, seconds=_ANSWER_SECONDS)
    outage = None if mode == "hang" else Outage(start=stops_at, end=returns_at, mode=mode)
    rows = round(3 * length * SLOTS / _ANSWER_SECONDS)

    def stop_and_continue_process(servers: Sequence[Server]) -> bool:
        if mode == "hang":
            stopped = stops_at <= servers[0].age() < returns_at
            servers[0].process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        return False

    clients = settings.chosen([BATCHROUTER, litellm(3 * SLOTS)])
    logs = observe(
        clients,
        lambda: aiohttp_servers(server.model_copy(update={"outage": outage}), server, server),
        lambda servers: Batch(
            endpoints=endpoint_specs(servers, LimitsSpec(max_in_flight=SLOTS)),
            rows=rows,
            timeout_seconds=_TIMEOUT_SECONDS,
        ),
        should_stop=stop_and_continue_process,
    )
    show(
        f"one of three endpoints stops ({mode}) for {returns_at - stops_at:.0f} s of about {length} s, {rows:,} rows",
        "the others' rate >= 97 %; <= 5 failures besides those in flight, then one probe per 10 s; "
        "its full rate within 15 s of its return",
        [
            (client.name, _outage_columns(log, stops_at, returns_at, rows))
            for client, log in zip(clients, logs, strict=True)
        ],
    )


def _outage_columns(log: Sequence[LoggedRequest], stops_at: float, returns_at: float, rows: int) -> dict[str, str]:
    dying = [request for request in log if request.server == 0]
    others = [request for request in log if request.server != 0]
    stopped, returned = dying[0].arrived + stops_at, dying[0].arrived + returns_at
    # A stopped process reads the requests that reached it meanwhile when it continues.
    failed = [
        request
        for request in dying
        if request.status != 200 or request.arrived < returned - _CLOCK_TOLERANCE_SECONDS <= request.ended
    ]
    waiting = [
        request
        for request in dying
        if abs(request.arrived - returned) <= _CLOCK_TOLERANCE_SECONDS and request not in failed
    ]
    arrivals_while_down = [request.arrived for request in failed if request.arrived >= stopped]
    gaps_after_five = [later - earlier for earlier, later in pairwise(arrivals_while_down[4:])]
    rate_before = figures.answers_per_second(others, dying[0].arrived + 1, stopped)
    rate_during = figures.answers_per_second(others, stopped, returned)
    return {
        "the others' rate": percent(rate_during / rate_before),
        "in flight": f"{len(failed) - len(arrivals_while_down)}",
        "sent while down": f"{len(arrivals_while_down)}",
        "shortest gap after 5": f"{min(gaps_after_five):.1f} s" if gaps_after_five else "-",
        "waiting at its return": f"{len(waiting)}",
        "full rate after": _recovery_time(dying, dying[0].arrived + 1, stopped, returned),
        "rows lost": f"{figures.rows_lost(log, rows)}",
        "seconds": f"{figures.duration_seconds(log):.1f}",
    }


def _recovery_time(dying: Sequence[LoggedRequest], start: float, stopped: float, returned: float) -> str:
    """How long after its return the endpoint has 95 % of its earlier rate, over the next `_RATE_SPAN_SECONDS`."""
    rate_before = figures.answers_per_second(dying, start, stopped)
    last = max(request.ended for request in dying)
    at = returned
    while at + _RATE_SPAN_SECONDS <= last:
        if figures.answers_per_second(dying, at, at + _RATE_SPAN_SECONDS) >= 0.95 * rate_before:
            return f"{at - returned:.1f} s"
        at += 0.1
    return "never"
