"""Prints tables on the console."""

from collections.abc import Mapping, Sequence


def percent(share: float) -> str:
    """A share as `98.53 %`."""
    return f"{100 * share:.2f} %"


def times(value: float, reference: float) -> str:
    """`value` divided by `reference`, as `1.20 x`; `-` if the reference is 0."""
    return f"{value / reference:.2f} x" if reference else "-"


def show(title: str, target: str, rows: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Print a title, the target to meet, and a line for each client.

    Args:
        rows: each client's name and its cells by column; all have the same columns.
    """
    print(f"\n{title}\n  target: {target}")
    names = list(rows[0][1])
    lines = [["", *names], *([client, *(cells[name] for name in names)] for client, cells in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names) + 1)]
    for line in lines:
        first, *others = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        print("  " + "   ".join([first, *others]), flush=True)
