"""Limits on requests: a continuous rate with a burst (nginx, Envoy), and windows (the package `limits`)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import BATCHROUTER, Batch, cookbook, curator, litellm
from benchmarks.limits.comparison import StartServers, compare, observe
from benchmarks.limits.figures import LoggedRequest
from benchmarks.limits.servers.behaviour import Behaviour, WindowLimit
from benchmarks.limits.servers.processes import aiohttp_servers, endpoint_specs, envoy_server, nginx_server
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent
from schemas.endpoints import LimitsSpec

PER_SECOND = 100
BURST = 20

# Requests in a window, seconds of a window, and how many windows a run fills; it fills only half of the last one.
WINDOWS: tuple[tuple[int, Literal[1, 10, 60], int], ...] = ((100, 1, 20), (300, 10, 4), (600, 60, 4))
# With windows of this length or longer, a client leaves the machine nearly idle, so all clients run at once.
_QUIET_SECONDS = 10


def case_nginx(settings: Settings) -> None:
    """nginx allows 100 requests a second with a burst of 20."""
    _compare_with_burst(settings, "nginx limit_req", lambda: nginx_server(PER_SECOND, BURST))


def case_envoy(settings: Settings) -> None:
    """Envoy allows the same; its bucket holds only the burst, so it is made one request larger."""
    _compare_with_burst(settings, "Envoy local_ratelimit", lambda: envoy_server(1 + BURST, PER_SECOND, 1.0))


def case_windows(settings: Settings) -> None:
    """The package `limits` allows so many requests in 1, 10 and 60 seconds, in fixed and in moving windows."""
    strategies: tuple[Literal["fixed", "moving"], ...] = ("fixed", "moving")
    for amount, seconds, count in WINDOWS:
        for strategy in strategies:
            if seconds <= settings.longest_window:
                _compare_in_windows(settings, strategy, amount, seconds, count)


def _compare_with_burst(settings: Settings, server: str, start_servers: StartServers) -> None:
    rows = settings.scaled(2000)
    limits = LimitsSpec(rpm=60 * PER_SECOND, burst=BURST)

    clients = settings.chosen(
        [BATCHROUTER, litellm(16), litellm(64), cookbook(16), cookbook(64), *curator(settings.curator)]
    )
    logs = observe(clients, start_servers, lambda servers: Batch(endpoints=endpoint_specs(servers, limits), rows=rows))
    compare(
        f"{server}: {PER_SECOND} requests/s, burst {BURST}, {rows:,} rows",
        "used >= 98.5 %, refused <= 0.2 %",
        clients,
        logs,
        lambda log: usage_columns(figures.bucket_share_used(log, PER_SECOND, BURST), log),
    )


def _compare_in_windows(
    settings: Settings, strategy: Literal["fixed", "moving"], amount: int, seconds: Literal[1, 10, 60], count: int
) -> None:
    rows = amount * settings.scaled(count) - amount // 2
    server = Behaviour(limit=WindowLimit(strategy=strategy, amount=amount, seconds=seconds))
    limits = LimitsSpec(rpm=amount * 60 / seconds, window_seconds=seconds)

    clients = settings.chosen([BATCHROUTER, litellm(16), cookbook(16), *curator(settings.curator)])
    logs = observe(
        clients,
        lambda: aiohttp_servers(server),
        lambda servers: Batch(endpoints=endpoint_specs(servers, limits), rows=rows),
        at_once=seconds >= _QUIET_SECONDS,
    )
    compare(
        f"limits, {strategy} window: {amount} requests in {seconds} s, {rows:,} rows",
        "used >= 98 %, refused <= 0.5 %",
        clients,
        logs,
        lambda log: usage_columns(figures.windows_share_used(log, amount, seconds), log),
    )


def usage_columns(share_used: float, log: Sequence[LoggedRequest]) -> Mapping[str, str]:
    """The columns `used` and `refused` of a case in which the client knows the limit."""
    return {"used": percent(share_used), "refused": percent(figures.refused_share(log))}
