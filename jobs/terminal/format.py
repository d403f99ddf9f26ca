"""Formats figures and names for people."""

from datetime import timedelta
from decimal import Decimal
from math import ceil, floor, log10
from pathlib import Path

from jobs.terminal.printable import is_seen
from schemas.reports import EmbeddingReport

UNKNOWN = "unknown"


def usd(dollars: Decimal | float | None) -> str:
    """`$1,234.56`; below one dollar with three significant digits, as in `$0.000123`."""
    if dollars is None:
        return UNKNOWN
    sign, size = ("-" if dollars < 0 else ""), abs(float(dollars))
    if size == 0 or size >= 1:
        return f"{sign}${size:,.2f}"
    return f"{sign}${size:.{2 - floor(log10(size))}f}"


def share(part: float) -> str:
    """`42 %`; with one decimal below 10 % and above 99 %."""
    percent = 100 * part
    return f"{percent:.1f} %" if 0 < abs(percent) < 10 or 99 < abs(percent) < 100 else f"{percent:.0f} %"


def compact(count: float) -> str:
    """A count with four digits at most: `9,870`, `12.3k`, `4.56M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= size:
            value = count / (1e3 if letter == "k" else size)
            return f"{value:.3g}{letter}" if value < 999.5 else f"{value:,.0f}{letter}"
    return f"{count:,.0f}"


def duration(seconds: float | None) -> str:
    """`84 ms`, `3.2 s`, `4 min 05 s`, `2 h 07 min`, `3 d 4 h`."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = timedelta(seconds=round(seconds))
    hours, minutes, left = whole.seconds // 3600, whole.seconds // 60 % 60, whole.seconds % 60
    if whole.days:
        return f"{whole.days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {left:02} s"


def countdown(seconds: float | None) -> str:
    """Time left, in whole seconds: `21 s`, `4 min 05 s`; empty at the end, `-` if it is unknown."""
    if seconds is None:
        return "-"
    whole = ceil(seconds)
    return (f"{whole} s" if whole < 60 else duration(whole)) if whole else ""


def stopwatch(seconds: float) -> str:
    """Elapsed time: `0:05`, `12:30`, `1:04:09`."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def pace(per_second: float) -> str:
    """`310 rows/s`, `4.2 rows/s`, `12.0 rows/min`."""
    if per_second >= 9.95 or not per_second:
        return f"{per_second:,.0f} rows/s"
    return f"{per_second:.1f} rows/s" if per_second >= 1 else f"{per_second * 60:.1f} rows/min"


def counted(count: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def typed(path: Path | str) -> str:
    """A path as the user can type it: relative if it is below the current folder."""
    if not path or not Path(path).is_relative_to(Path.cwd()):
        return str(path)
    return f"{Path(path).relative_to(Path.cwd())}{'/' if str(path).endswith('/') else ''}"


def printable(text: str) -> str:
    """Text for one cell of a table, on one line; characters that cannot be seen are replaced."""
    return "".join(char if is_seen(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def embedded(embeddings: EmbeddingReport) -> str:
    """What an embedder's endpoints embedded and what it cost, in one line."""
    asked = f"{counted(embeddings.inputs, 'prompt')} by {printable(embeddings.model)}"
    doubt = f", {embeddings.in_doubt:,} of them in doubt after a kill" if embeddings.in_doubt else ""
    return f"{asked}{doubt}: {embeddings.prompt_tokens:,} tokens, {usd(embeddings.cost_usd)}"
