"""Prints the report of an evaluation on a terminal of 80 columns or more."""

from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from jobs.terminal.format import counted, printable, typed
from schemas.evaluation_report import BenchmarkFigures, Evaluation, Figure, RouterFigures

_NOTHING = "-"


def render_evaluation(found: Evaluation, console: Console) -> None:
    """Print a table and notes per benchmark, and the routers that could not be measured."""
    for benchmark in found.benchmarks:
        console.print(_title(benchmark))
        console.print(Padding(_models(benchmark), (0, 0, 0, 2)))
        console.print(Padding(_routers(benchmark, intervals=found.bootstrap > 0), (1, 0, 0, 2)))
        notes = Table.grid(padding=(0, 2))
        for note in _notes(benchmark):
            notes.add_row(Text("note", "yellow"), Text(printable(note)))
        console.print(Padding(notes, (0, 0, 1 if notes.row_count else 0, 2)))
    facts = Table.grid(padding=(0, 2))
    for name, reason in found.not_evaluated.items():
        facts.add_row(Text("not measured", "red"), Text(printable(f"{name}: {reason}")))
    for line in found.spent:
        facts.add_row(Text("spent", "dim"), Text(printable(line)))
    facts.add_row(Text("results", "dim"), Text(typed(f"{Path(found.output)}/")))
    console.print(facts)


def quality(benchmark: BenchmarkFigures, value: float) -> str:
    """A mean quality as text: in percent for right or wrong answers, unchanged for grades."""
    return f"{value:.2f}" if benchmark.grades else f"{100 * value:.1f} %"


def _title(benchmark: BenchmarkFigures) -> Text:
    text = Text.assemble((printable(benchmark.name), "bold"), f"  {counted(benchmark.prompts, 'prompt')}")
    if benchmark.duplicates:
        text.append(f", {benchmark.duplicates:,} of them repeats")
    return text


def _models(benchmark: BenchmarkFigures) -> Text:
    parts = [f"{printable(name)} {quality(benchmark, value)}" for name, value in benchmark.models.items()]
    best = f"; best single: {printable(benchmark.best_single)}" if len(parts) > 2 else ""
    return Text(", ".join(parts) + best, "dim")


def _routers(benchmark: BenchmarkFigures, *, intervals: bool) -> Table:
    with_costs = any(figures.aiq is not None for figures in benchmark.routers.values())
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("router", overflow="fold")
    heads = ["APGR", *(["95 %"] if intervals else []), "CPT20", "CPT50", "CPT80", "AUC"]
    for head in [*heads, *(["AIQ"] if with_costs else []), "RouteLLM"]:
        table.add_column(head, justify="right", no_wrap=True)
    for name, figures in _ordered(benchmark):
        baseline = figures.role == "baseline"
        cells = [_plain(figures.apgr), *([_bounds(figures.apgr)] if intervals else []), *_crossings(figures)]
        cells.append(_of(benchmark, figures.auc))
        if with_costs:
            cells.append(_of(benchmark, figures.aiq))
        cells.append(_NOTHING if figures.routellm is None else f"{figures.routellm.apgr:.3f}")
        table.add_row(Text(printable(name), "dim" if baseline else "bold"), *cells, style="dim" if baseline else "")
    return table


def _ordered(benchmark: BenchmarkFigures) -> Iterator[tuple[str, RouterFigures]]:
    """The routers, best first, then the baselines."""

    def rank(item: tuple[str, RouterFigures]) -> tuple[bool, float]:
        baseline, apgr = item[1].role == "baseline", item[1].apgr
        return baseline, 0.0 if baseline or apgr is None else -apgr.value

    yield from sorted(benchmark.routers.items(), key=rank)


def _notes(benchmark: BenchmarkFigures) -> Iterator[str]:
    yield from benchmark.notes
    for name, figures in benchmark.routers.items():
        yield from (f"{name}: {note}" for note in figures.notes)


def _plain(figure: Figure | None) -> str:
    return _NOTHING if figure is None else f"{figure.value:.3f}"


def _bounds(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return _NOTHING
    return f"{figure.low:.3f}-{figure.high:.3f}"


def _crossings(figures: RouterFigures) -> list[str]:
    if figures.cpt is None:
        return [_NOTHING] * 3
    return [f"{100 * one.value:.1f}" for one in figures.cpt.values()]


def _of(benchmark: BenchmarkFigures, figure: Figure | None) -> str:
    return _NOTHING if figure is None else quality(benchmark, figure.value).removesuffix(" %")
