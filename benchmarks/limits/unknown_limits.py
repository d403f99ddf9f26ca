"""Cases in which no limit is configured, so that the client has to find the server's limit."""

import math
from collections.abc import Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import BATCHROUTER, Batch, Client, litellm
from benchmarks.limits.comparison import StartServers, observe
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.processes import Server, aiohttp_servers, endpoint_specs, nginx_server
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent, show
from schemas.endpoints import LimitsSpec

# Slots of the server that queues: one number below and one above what a client would start with.
SLOTS = (12, 96)
FIXED_IN_FLIGHT = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Fixed numbers of requests in flight that the found one is compared with."""
# A fixed number is measured from second 6 to second 15 of its run.
_FIXED_FROM_SECONDS = 6
FIXED_UNTIL_SECONDS = 15
_TOKEN_SECONDS = 0.02
MAX_TOKENS = 150
# Servers log a request when it ends, so the run goes on until all requests that count are logged.
_LOGGING_SECONDS = 4

# The clients have a minute to find the limit; then they are measured for half a minute.
SETTLED_FROM_SECONDS = 60
SETTLED_UNTIL_SECONDS = 90

PER_SECOND = 100
BURST = 20
# More rows than any client can send before its run is stopped.
_ENDLESS_ROWS = 100_000


def case_unknown(settings: Settings) -> None:
    """No limit configured: servers that queue, and nginx that refuses, measured after a minute."""
    for slots in SLOTS:
        _compare_on_queueing_server(settings, slots)
    _compare_on_refusing_server(settings)


def _compare_on_queueing_server(settings: Settings, slots: int) -> None:
    """Compare what the clients find with the best fixed number in flight; batchrouter runs the fixed numbers too."""
    server = Behaviour(slots=slots, seconds=0.0, token_seconds=_TOKEN_SECONDS)
    start_seconds, end_seconds = settings.scaled(_FIXED_FROM_SECONDS), settings.scaled(FIXED_UNTIL_SECONDS)
    lines = []
    best = 0.0
    for fixed in (n for n in FIXED_IN_FLIGHT if slots / 4 <= n <= slots * 2):
        limits = LimitsSpec(max_in_flight=fixed)
        (log,) = _run_until([BATCHROUTER], lambda: aiohttp_servers(server), limits, end_seconds)
        speed = _tokens_per_second(log, start_seconds, end_seconds)
        best = max(best, speed)
        lines.append((f"fixed, {fixed} in flight", log, start_seconds, end_seconds))
    clients = settings.chosen([BATCHROUTER, litellm(32)])
    first, last = settings.scaled(SETTLED_FROM_SECONDS), settings.scaled(SETTLED_UNTIL_SECONDS)
    logs = _run_until(clients, lambda: aiohttp_servers(server), LimitsSpec(), last)
    lines += [(client.name, log, first, last) for client, log in zip(clients, logs, strict=True)]
    show(
        f"a server with {slots} slots that queues further requests, no limit configured",
        f"tokens/s of seconds {first}-{last} >= 95 % of the best fixed number in flight",
        [
            (
                name,
                {
                    "tokens/s": f"{_tokens_per_second(log, start, end):,.0f}",
                    "of the best": percent(_tokens_per_second(log, start, end) / best),
                    "at the server": f"{_mean_in_flight(log, start, end):.1f}",
                },
            )
            for name, log, start, end in lines
        ],
    )


def _compare_on_refusing_server(settings: Settings) -> None:
    clients = settings.chosen([BATCHROUTER, litellm(32)])
    first, last = settings.scaled(SETTLED_FROM_SECONDS), settings.scaled(SETTLED_UNTIL_SECONDS)
    logs = _run_until(clients, lambda: nginx_server(PER_SECOND, BURST), LimitsSpec(), last)
    lines = []
    for client, log in zip(clients, logs, strict=True):
        begin = _first_arrival(log)
        settled = [request for request in log if begin + first <= request.arrived < begin + last]
        searching = [request for request in log if request.arrived < begin + first]
        lines.append(
            (
                client.name,
                {
                    "used": percent(figures.answers_per_second(log, begin + first, begin + last) / PER_SECOND),
                    "refused": percent(figures.refused_share(settled)),
                    "refused in the first minute": percent(figures.refused_share(searching)),
                },
            )
        )
    show(
        f"nginx limit_req: {PER_SECOND} requests/s, burst {BURST}, no limit configured",
        f"used in seconds {first}-{last} >= 95 %",
        lines,
    )


def _run_until(
    clients: Sequence[Client], start_servers: StartServers, limits: LimitsSpec, seconds: float
) -> list[list[LoggedRequest]]:
    """Run each client until so many seconds after its first request are logged; return its server's log."""

    def should_stop(servers: Sequence[Server]) -> bool:
        return servers[0].age() > seconds + _LOGGING_SECONDS

    return observe(
        clients,
        start_servers,
        lambda servers: Batch(endpoints=endpoint_specs(servers, limits), rows=_ENDLESS_ROWS, max_tokens=MAX_TOKENS),
        should_stop=should_stop,
    )


def _first_arrival(log: Sequence[LoggedRequest]) -> float:
    return log[0].arrived if log else math.nan


def _tokens_per_second(log: Sequence[LoggedRequest], start: float, end: float) -> float:
    """Answer tokens per second, in seconds `start` to `end` after the first request."""
    return figures.charged_per_second(log, _first_arrival(log) + start, _first_arrival(log) + end)


def _mean_in_flight(log: Sequence[LoggedRequest], start: float, end: float) -> float:
    """Requests at the server on average, in seconds `start` to `end` after the first request."""
    return figures.mean_in_flight(log, _first_arrival(log) + start, _first_arrival(log) + end)
