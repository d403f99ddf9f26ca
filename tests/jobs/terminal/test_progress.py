import pickle
from decimal import Decimal
from io import StringIO

import pytest
from rich.console import Console

from batch.dispatch.snapshot import LaneSnapshot, ProgressSnapshot
from jobs.terminal.progress import LINE_EVERY_SECONDS, RATE_WINDOW_SECONDS, Pace, ProgressDisplay, View, frame, line


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


def lane(
    model: str = "mixtral",
    total: int = 100,
    done: int = 0,
    cost: Decimal | None = Decimal("0.5"),
    wait_seconds: float = 0.0,
) -> LaneSnapshot:
    return LaneSnapshot(
        model, total, done, ok=done, failed=0, in_flight=4, throttled=2, cost=cost, wait_seconds=wait_seconds
    )


def dispatching(done: int, *, final: bool = True, total: int = 100) -> ProgressSnapshot:
    return ProgressSnapshot("dispatch", 100, 100, (lane(done=done, total=total),), totals_final=final)


def plain(now: Hand) -> tuple[ProgressDisplay, StringIO]:
    file = StringIO()
    return ProgressDisplay(Console(file=file, width=80), now), file


def drawn(view: View, width: int = 80) -> str:
    file = StringIO()
    Console(file=file, width=width).print(frame(view, view.now.stage, width))
    return file.getvalue()


def test_snapshots_can_be_pickled() -> None:
    """Snapshots are passed between processes."""
    assert pickle.loads(pickle.dumps(dispatching(3))) == dispatching(3)


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    """Rows per second follow a change, and leave out the rows of an earlier sitting."""
    pace, once = Pace(), Pace()
    once.see(0, 1000)
    assert once.rate is None
    pace.see(0, 1000)
    pace.see(10, 1100)
    assert pace.rate == 10
    for second in range(11, 100):
        pace.see(second, 1100)
    assert pace.rate == 0
    pace.see(100, 1100 + 2 * int(RATE_WINDOW_SECONDS))
    assert pace.rate == pytest.approx(2)


def test_lines_come_at_each_stage_and_every_ten_seconds() -> None:
    """Without a terminal there is a line for each stage, one every ten seconds, and one for the last state."""
    now = Hand()
    progress, file = plain(now)
    with progress:
        for second in range(26):
            now.at = float(second)
            progress.update(dispatching(second * 2))
    lines = file.getvalue().splitlines()
    assert lines[0] == "0:00  sending"
    assert [words.split("; ")[1] for words in lines[1:]] == [
        "20 of 100 rows done (20 %)",
        "40 of 100 rows done (40 %)",
        "50 of 100 rows done (50 %)",
    ]
    assert LINE_EVERY_SECONDS == 10
    assert lines[1] == (
        "0:10  sending; 20 of 100 rows done (20 %); 2.0 rows/s; $0.500 spent; 40 s left; "
        "mixtral 20/100 (4 in flight, 2 throttled)"
    )


def test_totals_are_shown_only_once_they_are_final() -> None:
    """While rows are still being counted, scored and routed, there is no total, no percentage and no time left."""
    now = Hand()
    progress, file = plain(now)
    progress.update(ProgressSnapshot("scoring", 0, None))
    now.at = 10.0
    progress.update(ProgressSnapshot("scoring", 500, None, (lane(total=250, done=50),)))
    text = file.getvalue().splitlines()[-1]
    assert text.startswith("0:10  scoring; 500 rows scored; 50 rows/s; 50 rows done; $0.500 spent")
    assert "%" not in text
    assert "left" not in text


def test_the_time_left_is_that_of_the_slowest_lane() -> None:
    """The time left is that of the lane which needs longest, and is unknown while that of any lane is."""
    now = Hand()
    progress, file = plain(now)
    fast, slow = lane("fast", 100, 0), lane("slow", 100, 0)
    progress.update(ProgressSnapshot("dispatch", 200, 200, (fast, slow), totals_final=True))
    now.at = 10.0
    progress.update(
        ProgressSnapshot("dispatch", 200, 200, (lane("fast", 100, 100), lane("slow", 100, 10)), totals_final=True)
    )
    assert "; 1 min 30 s left; " in file.getvalue()
    now.at = 20.0
    progress, file = plain(now)
    progress.update(dispatching(0))
    assert "left" not in file.getvalue()


def test_an_unknown_cost_is_shown_as_unknown() -> None:
    """If a lane has no price, the display says that part of the cost is unknown."""
    now = Hand()
    progress, file = plain(now)
    snapshot = ProgressSnapshot("dispatch", 2, 2, (lane(done=1), lane("own", done=1, cost=None)), totals_final=True)
    with progress:
        progress.update(snapshot)
    assert "$0.500 spent and some that is unknown" in file.getvalue()
    progress, file = plain(now)
    with progress:
        progress.update(ProgressSnapshot("dispatch", 2, 2, (lane("own", done=1, cost=None),), totals_final=True))
    assert "; cost unknown; " in file.getvalue()
    assert "$" not in file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("final", [True, False])
def test_the_live_block_fits(width: int, final: bool) -> None:
    """The block keeps to the terminal's width with names of any length, and marks totals that still grow."""
    now = Hand()
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=True, color_system=None)
    with ProgressDisplay(console, now) as progress:
        for second in (0, 5):
            now.at = float(second)
            progress.update(
                ProgressSnapshot(
                    "dispatch",
                    12_000,
                    None if not final else 12_000,
                    (lane("a-model-with-a-name-that-has-no-end-" * 4, 12_000, second * 100), lane("b", 5_000, 10)),
                    totals_final=final,
                )
            )
        view = progress.view
    assert view is not None
    shown = drawn(view, width)
    assert max(map(len, shown.splitlines())) <= width
    assert ("500/12,000+" in shown) is not final
    assert "sending, $1.00 spent" in shown
    assert len(line(view)) > width


def test_a_stage_is_shown_before_there_are_rows() -> None:
    """A stage without rows, such as starting Ray, is shown once."""
    progress, file = plain(Hand())
    with progress:
        progress.stage("starting Ray")
        progress.stage("starting Ray")
    assert file.getvalue().splitlines() == ["0:00  starting Ray"]


def test_a_run_that_is_stopped_has_no_time_left() -> None:
    """While a stopped run waits for its requests in flight, the display says so and shows no time left."""
    progress, file = plain(now := Hand())
    for second, stage in ((0, "dispatch"), (10, "draining")):
        now.at = float(second)
        progress.update(ProgressSnapshot(stage, 100, 100, (lane(done=second),), totals_final=True))
    assert progress.view is not None
    assert progress.view.eta is None
    assert "stopping: what is in flight comes back first" in file.getvalue()


def test_an_error_leaves_the_last_state_on_the_terminal() -> None:
    """The live block is removed at the end; if the run fails, its last line stays."""
    file = StringIO()
    console = Console(file=file, width=80, force_terminal=True, color_system=None)

    def interrupted() -> None:
        with ProgressDisplay(console, Hand()) as progress:
            progress.update(dispatching(40))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "0:00  sending; 40 of 100 rows done (40 %); $0.500 spent" in file.getvalue().splitlines()[-1]


def test_the_time_left_counts_the_wait_and_the_rows_after_it() -> None:
    """During a wait no row ends: the time left is the wait plus the remaining rows at the last known pace."""
    progress, _ = plain(now := Hand())
    for second in range(0, 100, 5):
        now.at = float(second)
        shown = lane(done=100 + min(second, 10) * 10, total=1200, wait_seconds=0.0 if second <= 10 else 300.0)
        progress.update(ProgressSnapshot("dispatch", 1200, 1200, (shown,), totals_final=True))
    assert progress.view is not None
    assert progress.view.rate == 0
    assert progress.view.eta == pytest.approx(300 + 1000 / 10)
