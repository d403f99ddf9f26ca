"""What a server's log says. Shares are of 1; times are seconds since the epoch, by the server's clock."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Seen(NamedTuple):
    """One request, as a line of a log: `arrived ended server status row charged`."""

    arrived: float
    ended: float
    server: int
    """Its place among those started together."""
    status: int
    """0: the connection was broken off."""
    row: int
    """-1: the server does not look into what it is asked."""
    charged: int
    """What it took from the limit."""

    def line(self) -> str:
        """As it stands in the log."""
        return f"{self.arrived:.6f} {self.ended:.6f} {self.server} {self.status} {self.row} {self.charged}\n"


def read(text: str) -> list[Seen]:
    """The requests of a log, in order of arrival."""
    return sorted(
        Seen(float(arrived), float(ended), int(server), int(status), int(row), int(charged))
        for arrived, ended, server, status, row, charged in whole_lines(text)
    )


def whole_lines(text: str) -> list[list[str]]:
    """The words of each line. One that is being written is left out."""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def accepted(seen: Iterable[Seen]) -> list[Seen]:
    """Those that were answered."""
    return [s for s in seen if s.status == 200]


def refused_share(seen: Sequence[Seen]) -> float:
    """Share of all calls that the limit refused."""
    return sum(s.status == 429 for s in seen) / len(seen) if seen else math.nan


def seconds(seen: Iterable[Seen]) -> float:
    """From the first accepted to the last."""
    times = [s.arrived for s in accepted(seen)]
    return max(times) - min(times) if times else math.nan


def rows_lost(seen: Iterable[Seen], rows: int) -> int:
    """Rows that the server never answered."""
    return rows - len({s.row for s in accepted(seen)})


def used_of_bucket(seen: Sequence[Seen], per_second: float, burst: int) -> float:
    """Accepted, of what a bucket lets through from the first to the last accepted: one, the burst, and the pace."""
    return len(accepted(seen)) / (1 + burst + per_second * seconds(seen))


def used_of_rate(seen: Sequence[Seen], per_second: float) -> float:
    """Charged, of what the pace alone allows from the first to the last accepted; more than 1 with a burst on top."""
    return sum(s.charged for s in accepted(seen)) / (per_second * seconds(seen))


def used_of_windows(
    seen: Sequence[Seen], limit: float, window: float, *, at: Callable[[Seen], float] = lambda s: s.arrived
) -> float:
    """Charged, of what the whole windows since the first accepted allow. The last window, cut short, is left out.

    Args:
        at: when a request was charged.
    """
    charges = sorted((at(s), s.charged) for s in accepted(seen))
    if not charges:
        return math.nan
    first = charges[0][0]
    whole = math.floor((charges[-1][0] - first) / window)
    if not whole:
        return math.nan
    return sum(charged for time, charged in charges if time < first + whole * window) / (whole * limit)


def rate(seen: Iterable[Seen], start: float, end: float) -> float:
    """Answers per second given in [start, end)."""
    return sum(start <= s.ended < end for s in accepted(seen)) / (end - start)


def charged_rate(seen: Iterable[Seen], start: float, end: float) -> float:
    """What was charged per second for answers given in [start, end)."""
    return sum(s.charged for s in accepted(seen) if start <= s.ended < end) / (end - start)


def in_flight(seen: Iterable[Seen], start: float, end: float) -> float:
    """Requests at the server, waiting or being answered, on average over [start, end)."""
    return sum(max(0.0, min(s.ended, end) - max(s.arrived, start)) for s in seen) / (end - start)
