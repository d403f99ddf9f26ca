"""Endpoints that refuse, fail and die while others go on."""

import signal
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from benchmarks.limits import figures
from benchmarks.limits.clients.batch import OURS, Batch, Client, litellm
from benchmarks.limits.comparing import compare, observe
from benchmarks.limits.figures import Seen
from benchmarks.limits.servers.behaviour import Behaviour, Death, RefuseOnce
from benchmarks.limits.servers.starting import Server, answering, pool
from benchmarks.limits.settings import Settings
from benchmarks.limits.table import percent, show
from schemas.endpoints import LimitsSpec

RETRY_AFTER = 90
SLOTS = 8
# What was on its way when a server said no is not held against the client.
_ON_ITS_WAY_SECONDS = 0.2
# The benchmark looks at its clock so often, and a stopped process does not write down when it was stopped.
_GRACE_SECONDS = 0.3

FAULT_SHARES = ((0.01, 1.02), (0.20, 1.30))
# With six, one row in 15,000 would fail by chance where one attempt in five does.
ATTEMPTS = 10

DYING_SECONDS = 60
DIES_AT = 0.3
RETURNS_AT = 0.6
_ANSWER_SECONDS = 0.2
_HANGS_SECONDS = 5.0
# Its rate is looked at over so long.
_RATE_SECONDS = 3.0

Ending = Literal["reset", "503", "hang"]


def case_retry_after(settings: Settings) -> None:
    """One of two endpoints says 429 with Retry-After: 90, once."""
    wait = settings.scaled(RETRY_AFTER)
    server = Behaviour(slots=SLOTS, seconds=0.4)
    refusing = server.model_copy(update={"refuse_once": RefuseOnce(request=60, retry_after=wait)})

    def enough(servers: Sequence[Server]) -> bool:
        return servers[0].age() > 60 * server.seconds / SLOTS + wait + 10

    clients = settings.chosen([OURS, litellm(2 * SLOTS)])
    logs = observe(
        clients,
        lambda: answering(refusing, server),
        lambda servers: Batch(endpoints=pool(servers, LimitsSpec(max_in_flight=SLOTS)), rows=100_000),
        enough=enough,
        together=True,
    )
    show(
        f"Retry-After: {wait}, said once by one of two endpoints",
        f"the endpoint sees nothing for {wait} s, the other goes on",
        [(client.name, _silence(seen, wait)) for client, seen in zip(clients, logs, strict=True)],
    )


def _silence(seen: Sequence[Seen], wait: float) -> dict[str, str]:
    refusal = next(s for s in seen if s.status == 429)
    there = [s.arrived for s in seen if s.server == refusal.server and s.arrived > refusal.ended + _ON_ITS_WAY_SECONDS]
    other = [s for s in seen if s.server != refusal.server]
    before = figures.rate(other, seen[0].arrived + 1, refusal.ended)
    after = figures.rate(other, refusal.ended, refusal.ended + wait)
    return {
        "silent for": f"{there[0] - refusal.ended:.1f} s" if there else "the rest",
        "seen meanwhile": f"{sum(arrived < refusal.ended + wait for arrived in there)}",
        "the other's rate": percent(after / before),
    }


def case_faults(settings: Settings) -> None:
    """1 % and 20 % random 500s."""
    for share, most in FAULT_SHARES:
        _faults(settings.scaled(2000), share, most, settings.chosen([OURS, litellm(4 * SLOTS)]))


def _faults(rows: int, share: float, most: float, clients: Sequence[Client]) -> None:
    behaviours = [Behaviour(slots=2 * SLOTS, fault_share=share, seed=seed) for seed in (1, 2)]
    limits = LimitsSpec(max_in_flight=2 * SLOTS)
    logs = observe(
        clients,
        lambda: answering(*behaviours),
        lambda servers: Batch(endpoints=pool(servers, limits), rows=rows, attempts=ATTEMPTS),
    )
    compare(
        f"{percent(share)} random 500s at two endpoints, {rows:,} rows of {ATTEMPTS} attempts at most",
        f"sent over accepted <= {most}, no row lost",
        clients,
        logs,
        lambda seen: {
            "sent over accepted": f"{len(seen) / len(figures.accepted(seen)):.3f}",
            "rows lost": f"{figures.rows_lost(seen, rows)}",
        },
    )


def case_dying(settings: Settings) -> None:
    """One of three endpoints stops at 30 % of the run and returns at 60 %."""
    endings: tuple[Ending, ...] = ("reset", "503", "hang")
    for ending in endings:
        _dying(settings, ending)


def _dying(settings: Settings, ending: Ending) -> None:
    length = settings.scaled(DYING_SECONDS)
    dies, returns = DIES_AT * length, RETURNS_AT * length
    server = Behaviour(slots=SLOTS, seconds=_ANSWER_SECONDS)
    death = None if ending == "hang" else Death(first=dies, last=returns, how=ending)
    rows = round(3 * length * SLOTS / _ANSWER_SECONDS)

    def stop_and_go_on(servers: Sequence[Server]) -> bool:
        if ending == "hang":
            stopped = dies <= servers[0].age() < returns
            servers[0].process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)
        return False

    clients = settings.chosen([OURS, litellm(3 * SLOTS)])
    logs = observe(
        clients,
        lambda: answering(server.model_copy(update={"death": death}), server, server),
        lambda servers: Batch(
            endpoints=pool(servers, LimitsSpec(max_in_flight=SLOTS)), rows=rows, timeout_seconds=_HANGS_SECONDS
        ),
        enough=stop_and_go_on,
    )
    show(
        f"one of three endpoints stops ({ending}) for {returns - dies:.0f} s of about {length} s, {rows:,} rows",
        "rest >= 97 %; <= 5 failures besides those in flight, then a probe per 10 s; back at its share within 15 s",
        [(client.name, _mourning(seen, dies, returns, rows)) for client, seen in zip(clients, logs, strict=True)],
    )


def _mourning(seen: Sequence[Seen], dies: float, returns: float, rows: int) -> dict[str, str]:
    dying = [s for s in seen if s.server == 0]
    others = [s for s in seen if s.server != 0]
    died, returned = dying[0].arrived + dies, dying[0].arrived + returns
    # A stopped process reads what was sent to it meanwhile when it goes on.
    in_vain = [s for s in dying if s.status != 200 or s.arrived < returned - _GRACE_SECONDS <= s.ended]
    waited = [s for s in dying if abs(s.arrived - returned) <= _GRACE_SECONDS and s not in in_vain]
    knocks = [s.arrived for s in in_vain if s.arrived >= died]
    rest = figures.rate(others, died, returned) / figures.rate(others, dying[0].arrived + 1, died)
    return {
        "the rest's rate": percent(rest),
        "in flight": f"{len(in_vain) - len(knocks)}",
        "then seen": f"{len(knocks)}",
        "least gap after 5": f"{min(b - a for a, b in pairwise(knocks[4:])):.1f} s" if len(knocks) > 5 else "-",
        "at its return": f"{len(waited)}",
        "back after": _back(dying, dying[0].arrived + 1, died, returned),
        "rows lost": f"{figures.rows_lost(seen, rows)}",
        "seconds": f"{figures.seconds(seen):.1f}",
    }


def _back(dying: Sequence[Seen], start: float, died: float, returned: float) -> str:
    """When it has 95 % of its rate again, over the seconds that follow."""
    before = figures.rate(dying, start, died)
    last = max(s.ended for s in dying)
    at = returned
    while at + _RATE_SECONDS <= last:
        if figures.rate(dying, at, at + _RATE_SECONDS) >= 0.95 * before:
            return f"{at - returned:.1f} s"
        at += 0.1
    return "never"
