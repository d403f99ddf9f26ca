"""Prints what `calibrate` found on a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.terminal.format import counted, printable, share
from schemas.calibration import Calibration


def render_calibration(found: Calibration, console: Console) -> None:
    """Print for each share a plan, ready to paste, and how much it sends to the strongest model."""
    title = Text.assemble((printable(found.name), "bold"), f"  {counted(found.scored, 'row')} scored by {found.router}")
    if found.sampled is not None:
        title.append(f" (from a sample of {found.sampled:,})")
    console.print(title)
    table = Table.grid(padding=(0, 2))
    for cut in found.cutoffs:
        sends = f"{share(cut.sends)} ({cut.rows:,}) to {printable(found.strongest)}"
        table.add_row(Text(f"plan: {{strategy: cutoff, cutoff: {cut.cutoff!r}}}", "bold"), sends)
    console.print(table)
    for cut in found.cutoffs:
        if cut.tied:
            console.print(
                Text(
                    f"{cut.tied:,} rows have the same score where {share(cut.strong)} would end: no cutoff splits "
                    f"them; `plan: {{strategy: share, strong: {cut.strong:g}}}` does, in the order of the rows",
                    "yellow",
                )
            )
    for note in found.notes:
        console.print(Text.assemble(("note", "yellow"), f"  {printable(note)}"))
