"""Prints the report of a training on a terminal."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from batch.training.measuring import table
from jobs.terminal.format import counted, printable, typed
from schemas.training import TrainingReport


def render_training(report: TrainingReport, console: Console) -> None:
    """Print what a router was trained on, how well it does, notes on it, and where its checkpoint is."""
    console.print(Text(printable(report.name), "bold"))
    console.print(f"trained on {counted(report.prompts, 'prompt')}, measured on {report.held_out_prompts:,} others")
    models = _table(("model", "mean quality", "labels"))
    for name, quality in report.quality.items():
        models.add_row(
            Text(printable(name), "bold"), f"{quality:.3f}", f"{sum(one.judged[name] for one in report.data):,}"
        )
    _indented(console, models)
    heads, rows = table(report)
    if rows:
        figures = _table(heads)
        for name, *cells in rows:
            figures.add_row(Text(printable(name), "bold"), *cells)
        _indented(console, figures)
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for warning in report.warnings:
        facts.add_row(Text("note", "yellow"), Text(printable(warning)))
    for line in report.spent:
        facts.add_row(Text("spent", "dim"), Text(printable(line)))
    facts.add_row(Text("settled on", "dim"), Text(printable(_settled(report))))
    facts.add_row(Text("checkpoint", "dim"), Text(typed(Path(report.output))))
    _indented(console, facts)


def _settled(report: TrainingReport) -> str:
    return ", ".join(f"{key} {value}" for key, value in report.chosen.items()) or "-"


def _table(heads: tuple[str, ...]) -> Table:
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    for place, head in enumerate(heads):
        made.add_column(head, justify="right" if place else "left", no_wrap=bool(place), overflow="fold")
    return made


def _indented(console: Console, content: Table) -> None:
    console.print(Padding(content, (1, 0, 0, 2)))
