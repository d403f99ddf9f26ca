from decimal import Decimal
from pathlib import Path

import pytest

from jobs.terminal.format import compact, countdown, duration, pace, printable, share, stopwatch, typed, usd


@pytest.mark.parametrize(
    ("dollars", "text"),
    [
        (None, "unknown"),
        (Decimal(0), "$0.00"),
        (Decimal("1234.567"), "$1,234.57"),
        (Decimal("0.012345"), "$0.0123"),
        (Decimal("1E-9"), "$0.00000000100"),
        (-0.5, "-$0.500"),
    ],
)
def test_dollars(dollars: Decimal | float | None, text: str) -> None:
    """Dollars have cents, or three significant digits below one; an unknown cost is a word, never a zero."""
    assert usd(dollars) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.0842, "84 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7640, "2 h 07 min"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    """Durations have two units at most, and rounding never shows sixty of one."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9_870, "9,870"), (12_345, "12.3k"), (999_900, "1,000k"), (4_560_000, "4.56M"), (2.5e9, "2.5G")],
)
def test_counts(count: float, text: str) -> None:
    """Large counts are abbreviated."""
    assert compact(count) == text


def test_shares_and_paces() -> None:
    """Small shares and slow paces keep a digit, and a share just below 1 is not shown as 100 %."""
    assert [share(x) for x in (0, 0.004, 0.5, 0.998, 1)] == ["0 %", "0.4 %", "50 %", "99.8 %", "100 %"]
    assert [pace(x) for x in (0, 0.2, 4.21, 1310)] == ["0 rows/s", "12.0 rows/min", "4.2 rows/s", "1,310 rows/s"]


def test_names_cannot_control_the_terminal() -> None:
    """Escape sequences and line ends in a user's id are shown, not obeyed."""
    assert printable("a\x1b[31mb\nc é") == "a�[31mb�c é"


def test_clocks() -> None:
    """Time left is in whole seconds and blank at zero; elapsed time reads like a stopwatch."""
    assert [countdown(x) for x in (None, 0, 0.135, 21.2, 59.5, 245)] == [
        "-",
        "",
        "1 s",
        "22 s",
        "1 min 00 s",
        "4 min 05 s",
    ]
    assert [stopwatch(x) for x in (0, 5.9, 750, 3849)] == ["0:00", "0:05", "12:30", "1:04:09"]


def test_paths_below_the_current_folder_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below the current folder is shown from there, any other as it is."""
    monkeypatch.chdir(tmp_path)
    assert typed(tmp_path / "out" / "results.jsonl") == "out/results.jsonl"
    assert typed(f"{tmp_path}/out/") == "out/"
    assert [typed(path) for path in ("/elsewhere/a", "s3://bucket/a", "")] == ["/elsewhere/a", "s3://bucket/a", ""]
