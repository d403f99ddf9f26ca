"""Limits on requests: continuous with a burst (nginx, Envoy), and in windows (the package `limits`)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import OURS, Batch, cookbook, curator, litellm
from benchmarks.limits.comparing import Start, compare, observe
from benchmarks.limits.figures import Seen
from benchmarks.limits.servers.behaviour import Behaviour, WindowLimit
from benchmarks.limits.servers.starting import answering, envoy, nginx, pool
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent
from schemas.endpoints import LimitsSpec

PER_SECOND = 100
BURST = 20

# How many requests in how many seconds. A run fills so many windows but for half of the last.
WINDOWS: tuple[tuple[int, Literal[1, 10, 60], int], ...] = ((100, 1, 20), (300, 10, 4), (600, 60, 4))
# Where windows are this long, a client is all but idle, and all run at once.
_QUIET_SECONDS = 10


def case_nginx(settings: Settings) -> None:
    """100 requests a second with a burst of 20, held by nginx."""
    _continuous(settings, "nginx limit_req", lambda: nginx(PER_SECOND, BURST))


def case_envoy(settings: Settings) -> None:
    """The same held by Envoy. Its bucket has no place besides the burst, so it is one larger."""
    _continuous(settings, "Envoy local_ratelimit", lambda: envoy(1 + BURST, PER_SECOND, 1.0))


def case_windows(settings: Settings) -> None:
    """Windows of 1 and 10 seconds and of a minute, each fixed and moving."""
    strategies: tuple[Literal["fixed", "moving"], ...] = ("fixed", "moving")
    for amount, seconds, count in WINDOWS:
        for strategy in strategies:
            if seconds <= settings.longest_window:
                _windowed(settings, strategy, amount, seconds, count)


def _continuous(settings: Settings, server: str, start: Start) -> None:
    rows = settings.scaled(2000)
    limits = LimitsSpec(rpm=60 * PER_SECOND, burst=BURST)

    clients = settings.chosen([OURS, litellm(16), litellm(64), cookbook(16), cookbook(64), *curator(settings.curator)])
    logs = observe(clients, start, lambda servers: Batch(endpoints=pool(servers, limits), rows=rows))
    compare(
        f"{server}: {PER_SECOND} requests/s, burst {BURST}, {rows:,} rows",
        "used >= 98.5 %, refused <= 0.2 %",
        clients,
        logs,
        lambda seen: used(figures.used_of_bucket(seen, PER_SECOND, BURST), seen),
    )


def _windowed(
    settings: Settings, strategy: Literal["fixed", "moving"], amount: int, seconds: Literal[1, 10, 60], count: int
) -> None:
    rows = amount * settings.scaled(count) - amount // 2
    server = Behaviour(limit=WindowLimit(strategy=strategy, amount=amount, seconds=seconds))
    limits = LimitsSpec(rpm=amount * 60 / seconds, window_seconds=seconds)

    clients = settings.chosen([OURS, litellm(16), cookbook(16), *curator(settings.curator)])
    logs = observe(
        clients,
        lambda: answering(server),
        lambda servers: Batch(endpoints=pool(servers, limits), rows=rows),
        together=seconds >= _QUIET_SECONDS,
    )
    compare(
        f"limits, {strategy} window: {amount} requests in {seconds} s, {rows:,} rows",
        "used >= 98 %, refused <= 0.5 %",
        clients,
        logs,
        lambda seen: used(figures.used_of_windows(seen, amount, seconds), seen),
    )


def used(share: float, seen: Sequence[Seen]) -> Mapping[str, str]:
    """The columns of a case about a known limit."""
    return {"used": percent(share), "refused": percent(figures.refused_share(seen))}
