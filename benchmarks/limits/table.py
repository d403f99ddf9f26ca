"""Tables on the console."""

from collections.abc import Mapping, Sequence


def percent(share: float) -> str:
    """`98.53 %`."""
    return f"{100 * share:.2f} %"


def times(value: float, reference: float) -> str:
    """`1.20 x`, as compared with a reference."""
    return f"{value / reference:.2f} x" if reference else "-"


def show(title: str, asked: str, rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """A title with what was asked beneath it, and a line for each client. All rows have the same columns."""
    print(f"\n{title}\n  asked: {asked}")
    names = list(rows[0][1])
    lines = [["", *names], *([client, *(figures[name] for name in names)] for client, figures in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names) + 1)]
    for line in lines:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "   ".join([first, *others]), flush=True)
