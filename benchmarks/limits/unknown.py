"""No limit is configured: the client has to find it."""

import math
from collections.abc import Sequence

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import OURS, Batch, Client, litellm
from benchmarks.limits.comparing import Start, observe
from benchmarks.limits.figures import Seen
from benchmarks.limits.servers.behaviour import Behaviour
from benchmarks.limits.servers.starting import Server, answering, nginx, pool
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent, show
from schemas.endpoints import LimitsSpec

# Of a server that queues: fewer and more than a client would start with.
SLOTS = (12, 96)
STATIC = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
STATIC_SECONDS = 15
_STATIC_FROM = 6
_TOKEN_SECONDS = 0.02
MAX_TOKENS = 150
# Requests are seen when they end: it goes on for so long that all of those that count have.
_AFTERWARDS_SECONDS = 4

# What was found is looked at after a minute, for half a minute.
SETTLED_FROM = 60
SETTLED_UNTIL = 90

PER_SECOND = 100
BURST = 20
_PLENTY = 100_000


def case_unknown(settings: Settings) -> None:
    """No limit configured: servers that queue, and nginx that refuses, after a minute."""
    for slots in SLOTS:
        _queueing(settings, slots)
    _refusing(settings)


def _queueing(settings: Settings, slots: int) -> None:
    server = Behaviour(slots=slots, seconds=0.0, token_seconds=_TOKEN_SECONDS)
    start_seconds, end_seconds = settings.scaled(_STATIC_FROM), settings.scaled(STATIC_SECONDS)
    lines = []
    best = 0.0
    for static in (n for n in STATIC if slots / 4 <= n <= slots * 2):
        limits = LimitsSpec(max_in_flight=static)
        (seen,) = _watch([OURS], lambda: answering(server), limits, end_seconds)
        speed = _tokens(seen, start_seconds, end_seconds)
        best = max(best, speed)
        lines.append((f"static, {static} in flight", seen, start_seconds, end_seconds))
    clients = settings.chosen([OURS, litellm(32)])
    first, last = settings.scaled(SETTLED_FROM), settings.scaled(SETTLED_UNTIL)
    logs = _watch(clients, lambda: answering(server), LimitsSpec(), last)
    lines += [(client.name, seen, first, last) for client, seen in zip(clients, logs, strict=True)]
    show(
        f"a queue before {slots} slots, no limit configured",
        f"tokens/s of seconds {first}-{last} >= 95 % of the best static concurrency",
        [
            (
                name,
                {
                    "tokens/s": f"{_tokens(seen, start, end):,.0f}",
                    "of the best": percent(_tokens(seen, start, end) / best),
                    "at the server": f"{figures.in_flight(seen, _epoch(seen) + start, _epoch(seen) + end):.1f}",
                },
            )
            for name, seen, start, end in lines
        ],
    )


def _refusing(settings: Settings) -> None:
    clients = settings.chosen([OURS, litellm(32)])
    first, last = settings.scaled(SETTLED_FROM), settings.scaled(SETTLED_UNTIL)
    logs = _watch(clients, lambda: nginx(PER_SECOND, BURST), LimitsSpec(), last)
    lines = []
    for client, seen in zip(clients, logs, strict=True):
        epoch = _epoch(seen)
        settled = [s for s in seen if epoch + first <= s.arrived < epoch + last]
        lines.append(
            (
                client.name,
                {
                    "used": percent(figures.rate(seen, epoch + first, epoch + last) / PER_SECOND),
                    "refused": percent(figures.refused_share(settled)),
                    "of the first minute": percent(
                        figures.refused_share([s for s in seen if s.arrived < epoch + first])
                    ),
                },
            )
        )
    show(
        f"nginx limit_req: {PER_SECOND} requests/s, burst {BURST}, no limit configured",
        f"used in seconds {first}-{last} >= 95 %",
        lines,
    )


def _watch(clients: Sequence[Client], start: Start, limits: LimitsSpec, seconds: float) -> list[list[Seen]]:
    def enough(servers: Sequence[Server]) -> bool:
        return servers[0].age() > seconds + _AFTERWARDS_SECONDS

    return observe(
        clients,
        start,
        lambda servers: Batch(endpoints=pool(servers, limits), rows=_PLENTY, max_tokens=MAX_TOKENS),
        enough=enough,
    )


def _epoch(seen: Sequence[Seen]) -> float:
    return seen[0].arrived if seen else math.nan


def _tokens(seen: Sequence[Seen], start: float, end: float) -> float:
    return figures.charged_rate(seen, _epoch(seen) + start, _epoch(seen) + end)
