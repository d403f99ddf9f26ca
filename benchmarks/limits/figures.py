"""Figures computed from a server's log. Shares are between 0 and 1; times are in seconds since the epoch, by the
server's clock.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class LoggedRequest(NamedTuple):
    """One request that reached a server, as a line of its log: `arrived ended server status row charged`."""

    arrived: float
    ended: float
    server: int
    """The server's place among those started together, from 0."""
    status: int
    """HTTP status; 0: the server broke the connection off."""
    row: int
    """-1: the server does not read the row's number."""
    charged: int
    """What the request took from the server's limit: requests or tokens."""

    def line(self) -> str:
        """The request as a line of the log."""
        return f"{self.arrived:.6f} {self.ended:.6f} {self.server} {self.status} {self.row} {self.charged}\n"


def parse_log(text: str) -> list[LoggedRequest]:
    """The requests of a log, in order of arrival."""
    return sorted(
        LoggedRequest(float(arrived), float(ended), int(server), int(status), int(row), int(charged))
        for arrived, ended, server, status, row, charged in complete_lines(text)
    )


def complete_lines(text: str) -> list[list[str]]:
    """The words of each line, without a last line that the server is still writing."""
    return [line.split() for line in text.splitlines(keepends=True) if line.endswith("\n")]


def accepted(log: Iterable[LoggedRequest]) -> list[LoggedRequest]:
    """The requests that were answered with 200."""
    return [request for request in log if request.status == 200]


def refused_share(log: Sequence[LoggedRequest]) -> float:
    """The share of all requests that were refused with 429; NaN if there are none."""
    return sum(request.status == 429 for request in log) / len(log) if log else math.nan


def duration_seconds(log: Iterable[LoggedRequest]) -> float:
    """Seconds from the arrival of the first accepted request to that of the last; NaN if none was accepted."""
    times = [request.arrived for request in accepted(log)]
    return max(times) - min(times) if times else math.nan


def rows_lost(log: Iterable[LoggedRequest], rows: int) -> int:
    """How many of `rows` rows were never answered."""
    return rows - len({request.row for request in accepted(log)})


def bucket_share_used(log: Sequence[LoggedRequest], per_second: float, burst: int) -> float:
    """Accepted requests as a share of what a token bucket lets through between the first and the last of them.

    A bucket lets through one request, the burst, and `per_second` for each second.
    """
    return len(accepted(log)) / (1 + burst + per_second * duration_seconds(log))


def rate_share_used(log: Sequence[LoggedRequest], per_second: float) -> float:
    """What was charged, as a share of what the rate alone allows between the first and the last accepted request.

    With a burst on top of the rate it can exceed 1.
    """
    return sum(request.charged for request in accepted(log)) / (per_second * duration_seconds(log))


def windows_share_used(
    log: Sequence[LoggedRequest],
    limit: float,
    window: float,
    *,
    at: Callable[[LoggedRequest], float] = lambda request: request.arrived,
) -> float:
    """What was charged, as a share of what the whole windows allow; NaN if no window is whole.

    Windows are counted from the first accepted request. The last window is left out, because the end of the run cuts
    it short.

    Args:
        limit: what one window allows.
        window: length of a window in seconds.
        at: when a request was charged.
    """
    charges = sorted((at(request), request.charged) for request in accepted(log))
    if not charges:
        return math.nan
    first = charges[0][0]
    whole_windows = math.floor((charges[-1][0] - first) / window)
    if not whole_windows:
        return math.nan
    charged_in_whole = sum(charged for time, charged in charges if time < first + whole_windows * window)
    return charged_in_whole / (whole_windows * limit)


def answers_per_second(log: Iterable[LoggedRequest], start: float, end: float) -> float:
    """Answers per second that the servers finished in [start, end)."""
    return sum(start <= request.ended < end for request in accepted(log)) / (end - start)


def charged_per_second(log: Iterable[LoggedRequest], start: float, end: float) -> float:
    """What was charged per second for answers that the servers finished in [start, end)."""
    return sum(request.charged for request in accepted(log) if start <= request.ended < end) / (end - start)


def mean_in_flight(log: Iterable[LoggedRequest], start: float, end: float) -> float:
    """Requests at the server, queued or being answered, on average over [start, end)."""
    seconds = sum(max(0.0, min(request.ended, end) - max(request.arrived, start)) for request in log)
    return seconds / (end - start)
