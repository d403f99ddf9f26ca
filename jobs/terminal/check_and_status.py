"""Prints what `check` and `status` found."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from batch.dispatch.judging.patience import date
from jobs.environment import wall_clock
from jobs.terminal.format import counted, duration, printable, share
from schemas.checks import CheckReport
from schemas.run_status import RunStatus


def render_check(found: CheckReport, name: str, console: Console) -> None:
    """Print what a check found; the worst comes last, next to the prompt."""
    title = Text.assemble((printable(name), "bold"), f"  {counted(found.rows, 'row')}")
    if found.invalid:
        title.append(f", {found.invalid:,} invalid", "yellow")
    console.print(title)
    if found.endpoints:
        table = Table.grid(padding=(0, 2))
        for endpoint in found.endpoints:
            name_and_url = Text(printable(endpoint.model), "bold"), Text(printable(endpoint.url))
            table.add_row(*name_and_url, Text(printable(endpoint.said), "dim" if endpoint.usable else "yellow"))
        console.print(table)
    _list(console, "invalid", found.faults, "yellow")
    if found.invalid > len(found.faults):
        console.print(Text(f"and {found.invalid - len(found.faults):,} more invalid rows", "yellow"))
    _list(console, "note", found.notes, "cyan")
    _list(console, "warning", found.warnings, "yellow")
    _list(console, "problem", found.problems, "bold red")
    if not found.problems:
        console.print(Text("Nothing stands in the way of a run.", "green"))


def render_status(found: RunStatus, path: Path, console: Console) -> None:
    """Print how far a run has come."""
    state = "running" if found.running else "finished" if found.finished else "stopped"
    console.print(Text.assemble((printable(found.job), "bold"), f"  {state}  ", (printable(str(path)), "dim")))
    if not found.shards:
        console.print("The input has not been cut into shards yet.")
        return
    ended = sum(found.statuses.values())
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_row("rows", f"{found.rows:,}", f"in {counted(found.shards, 'shard')}")
    table.add_row("scored", f"{found.scored:,}", share(found.scored / found.rows))
    table.add_row("routed", f"{found.routed:,}", share(found.routed / found.rows))
    by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(found.statuses.items()) if count)
    table.add_row("ended", f"{ended:,}", f"{share(ended / found.rows)}  {by_status}")
    if found.ambiguous and found.running:
        table.add_row("in flight", f"{found.ambiguous:,}", "sent, and not answered yet")
    elif found.ambiguous:
        table.add_row("ambiguous", f"{found.ambiguous:,}", "in flight when the run was killed, and possibly billed")
    if found.sittings:
        table.add_row("time", duration(found.wall_seconds), f"in {counted(found.sittings, 'sitting')} so far")
    console.print(table)
    for model, (until, words) in found.waits.items():
        line = f"{model} waits until {date(until, wall_clock())}: {words}"
        console.print(Text(printable(line), "yellow"), soft_wrap=True)
    if not found.running and not found.finished:
        console.print("Rerun the same `batchrouter run` to resume.")
    elif found.statuses.get("unsent") and not found.running:
        console.print("Rerun the same `batchrouter run` to send the rows that are unsent.")


def _list(console: Console, label: str, lines: Iterable[str], style: str) -> None:
    for line in lines:
        console.print(Text.assemble((f"{label}: ", style), printable(line)), soft_wrap=True)
