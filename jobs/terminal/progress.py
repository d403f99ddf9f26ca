"""Shows the progress of a command: live on a terminal, line by line elsewhere."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from batch.dispatch.snapshot import LaneSnapshot, ProgressSnapshot
from jobs.terminal.format import countdown, counted, pace, printable, share, stopwatch, usd
from jobs.terminal.printable import console as standard_console

# Long enough to smooth a burst of retries, short enough to follow a changed limit.
RATE_WINDOW_SECONDS = 30.0

# Keeps the log of a long run short.
LINE_EVERY_SECONDS = 10.0

FRAMES_PER_SECOND = 4

# The pipeline's stages, in words for the user.
_WORDS = {
    "reading": "reading the input",
    "dispatch": "sending",
    "draining": "stopping: what is in flight comes back first",
    "writing": "writing the results",
}


class Pace:
    """Rows per second over the last half minute. Rows that were done at the first look belong to an earlier sitting."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self.last: float | None = None
        """The rate when a row was last done, which is the expected rate after a pause; `None`: no row was done yet."""

    def see(self, now: float, done: int) -> None:
        """Record that `done` rows are done at `now`, in seconds."""
        went_on = bool(self._seen) and done > self._seen[-1][1]
        self._seen.append((now, done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_WINDOW_SECONDS:
            self._seen.popleft()
        if went_on:
            self.last = self.rate

    @property
    def rate(self) -> float | None:
        """Rows per second; `None` before the second look."""
        if len(self._seen) < 2:
            return None
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end > start else None


@dataclass(frozen=True, slots=True)
class LaneView:
    """A lane with the rate and remaining time that follow from several snapshots."""

    lane: LaneSnapshot
    rate: float | None
    eta: float | None
    """Seconds to its end; `None`: unknown yet."""


@dataclass(frozen=True, slots=True)
class View:
    """A snapshot with the rates and remaining times that follow from several of them."""

    now: ProgressSnapshot
    lanes: tuple[LaneView, ...]
    scoring_rate: float | None

    @property
    def done(self) -> int:
        """Rows that have ended."""
        return sum(view.lane.done for view in self.lanes)

    @property
    def sendable(self) -> int | None:
        """Rows to send; `None`: not all rows are routed yet."""
        return sum(view.lane.total for view in self.lanes) if self.now.totals_final else None

    @property
    def rate(self) -> float | None:
        """Rows per second of all lanes together; `None`: unknown yet."""
        rates = [view.rate for view in self.lanes if view.rate is not None]
        return sum(rates) if rates else None

    @property
    def eta(self) -> float | None:
        """Seconds to the end of the slowest lane, since lanes do not wait for each other; `None`: unknown yet."""
        etas = [view.eta for view in self.lanes]
        return None if None in etas else max((eta for eta in etas if eta is not None), default=None)

    @property
    def cost(self) -> Decimal:
        """The known part of the spending."""
        return sum((view.lane.cost or Decimal(0) for view in self.lanes), Decimal(0))


class ProgressDisplay:
    """Shows snapshots as they come; a context manager.

    On a terminal the display is redrawn four times a second, and removed at the end, where the report follows; after an
    error its last state stays, as a line. Elsewhere it prints a line at each new stage, every ten seconds while
    snapshots come, and at the end; each begins with the time since the start.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        """Show progress on `console`, by default on standard error; `now` returns monotonic seconds."""
        self._console = console or standard_console(stderr=True)
        self._now = now
        self._started = now()
        self._paces: dict[str, Pace] = {}
        self._scoring = Pace()
        self._stage = "starting"
        self.view: View | None = None
        self._last_line: tuple[float, str] | None = None
        self._live: Live | None = None
        if self._console.is_interactive:
            self._live = Live(
                console=self._console,
                transient=True,
                refresh_per_second=FRAMES_PER_SECOND,
                get_renderable=self._frame,
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if self.view and self.view.lanes and (error or not self._live):
            self._write_line(line(self.view))

    def stage(self, name: str) -> None:
        """Show this stage until the next call, or until a snapshot names another one."""
        if name == self._stage:
            return
        self._stage = name
        if not self._live:
            self._write_line(_WORDS.get(name, name))

    def update(self, snapshot: ProgressSnapshot) -> None:
        """Show this snapshot from now on."""
        now = self._now()
        self.stage(snapshot.stage)
        self._scoring.see(now, snapshot.scored)
        lanes = []
        for lane in snapshot.lanes:
            pace_of_lane = self._paces.setdefault(lane.model, Pace())
            pace_of_lane.see(now, lane.done)
            # A run that is stopping sends no further rows, so those that are left take no time of this sitting.
            final = snapshot.totals_final and snapshot.stage != "draining"
            lanes.append(_lane_view(lane, pace_of_lane, final=final))
        self.view = View(snapshot, tuple(lanes), self._scoring.rate)
        if self._live or (self._last_line and now - self._last_line[0] < LINE_EVERY_SECONDS):
            return
        self._write_line(line(self.view))

    def _write_line(self, text: str) -> None:
        if self._last_line and text == self._last_line[1]:
            return
        self._console.print(Text(f"{stopwatch(self._now() - self._started)}  {text}"), soft_wrap=True)
        self._last_line = (self._now(), text)

    def _frame(self) -> Group | Text:
        return frame(self.view, self._stage, self._console.width) if self.view else Text(self._stage, "dim")


def line(view: View) -> str:
    """The view on one line."""
    now = view.now
    parts = [_WORDS.get(now.stage, now.stage)]
    if now.total is None or now.scored < now.total:
        parts.append(_progress(now.scored, now.total, "scored"))
        if view.scoring_rate:
            parts.append(pace(view.scoring_rate))
    if view.lanes:
        parts.append(_progress(view.done, view.sendable, "done"))
        if view.rate:
            parts.append(pace(view.rate))
        parts.append(_cost(view))
        if view.eta:
            parts.append(f"{countdown(view.eta)} left")
    parts += [_lane_words(lane.lane) for lane in view.lanes]
    return "; ".join(parts)


def frame(view: View, stage: str, width: int) -> Group:
    """The view as a block of a few lines, at most `width` columns wide."""
    now = view.now
    parts: list[Text | Table] = []
    if now.total is None or now.scored < now.total:
        parts.append(_overall("scored", now.scored, now.total, view.scoring_rate, None, width))
    if view.lanes:
        parts.append(_overall("done", view.done, view.sendable, view.rate, view.eta, width))
        parts.append(_lanes(view, width))
    stage_words = _WORDS.get(stage, stage)
    words = [stage_words, _cost(view)] if view.lanes else [stage_words]
    failed = sum(lane.lane.failed for lane in view.lanes)
    if failed:
        words.append(f"{failed:,} failed")
    return Group(*parts, Text(", ".join(words), "dim"))


def _lane_view(lane: LaneSnapshot, pace_of_lane: Pace, *, final: bool) -> LaneView:
    rate = pace_of_lane.rate
    left = lane.total - lane.done
    if not final:
        return LaneView(lane, rate, None)
    if not left:
        return LaneView(lane, rate, 0.0)
    # While all endpoints ask for a pause no row is done; after it rows go on at the last rate. If there is no such rate
    # yet, the pause is the least that is left.
    waits = lane.wait_seconds
    expected = pace_of_lane.last if waits else rate
    return LaneView(lane, rate, waits + (left / expected if expected else 0.0) if expected or waits else None)


def _progress(done: int, total: int | None, what: str) -> str:
    if total is None:
        return f"{counted(done, 'row')} {what}"
    return f"{done:,} of {counted(total, 'row')} {what} ({share(done / total if total else 1.0)})"


def _cost(view: View) -> str:
    unknown = any(lane.lane.cost is None and lane.lane.done for lane in view.lanes)
    if unknown and not view.cost:
        return "cost unknown"
    return f"{usd(view.cost)} spent" + (" and some that is unknown" if unknown else "")


def _lane_words(lane: LaneSnapshot) -> str:
    words = [f"{lane.in_flight:,} in flight"]
    if lane.failed:
        words.append(f"{lane.failed:,} failed")
    if lane.throttled:
        words.append(f"{lane.throttled:,} throttled")
    if lane.waiting:
        words.append(f"waits for {printable(lane.waiting)}")
    return f"{printable(lane.model)} {lane.done:,}/{lane.total:,} ({', '.join(words)})"


def _overall(what: str, done: int, total: int | None, rate: float | None, eta: float | None, width: int) -> Table:
    grid = Table.grid(padding=(0, 2))
    words = [_progress(done, total, what)]
    if rate:
        words.append(pace(rate))
    if eta:
        words.append(f"{countdown(eta)} left")
    # An empty bar while the total is unknown: without colours a pulsing bar looks finished.
    bar = ProgressBar(total=total or 1, completed=done if total else 0, width=max(10, min(40, width - 60)))
    grid.add_row(bar, Text(", ".join(words)))
    return grid


def _lanes(view: View, width: int) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=max(12, width - 62))
    # As wide as figures usually get, so that columns do not move from frame to frame.
    for name, least in (("done", 9), ("in flight", 0), ("throttled", 0), ("rate", 7), ("cost", 9), ("left", 6)):
        table.add_column(name, justify="right", no_wrap=True, min_width=least)
    open_end = "" if view.now.totals_final else "+"
    for lane_view in view.lanes:
        lane = lane_view.lane
        table.add_row(
            Text(printable(lane.model), "bold"),
            f"{lane.done:,}/{lane.total:,}{open_end}",
            Text(f"{lane.in_flight:,}", "yellow" if lane.waiting else ""),
            Text(f"{lane.throttled:,}", "yellow" if lane.throttled else ""),
            "-" if lane_view.rate is None else f"{lane_view.rate:,.{1 if lane_view.rate < 10 else 0}f}/s",
            usd(lane.cost),
            countdown(lane_view.eta),
        )
    return table
