"""Prints reports and estimates on a terminal of 80 columns or more, with or without colours."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.terminal.format import compact, counted, duration, embedded, pace, printable, share, typed, usd
from schemas.reports import Estimate, PlanReport, Range, Report, RowCounts

# Keeps the table short; report.json has all of them.
MOST_AMBIGUOUS = 10

# Keeps the list short; `check` shows more.
MOST_FAULTS = 5

# A terminal of so many columns has room for a bar beside each model.
WIDE = 100


def render_console(report: Report, console: Console, page: Path | None = None) -> None:
    """Print the report of a run, and where its results and its HTML `page` are."""
    console.print(_title(report.name, report.rows, report.timing.wall_seconds, report.timing.rows_per_second))
    console.print(_verdict(report))
    _indented(console, _comparison(report))
    _indented(console, _models(report, wide=console.width >= WIDE))
    _indented(console, _endpoints(report))
    if report.errors:
        _indented(console, _errors(report))
    if report.ambiguous:
        _indented(console, _ambiguous(report))
    facts = [*(("note", note) for note in report.notes), ("plan", _plan(report.plan))]
    if report.embeddings is not None:
        facts.append(("embedded", embedded(report.embeddings)))
    facts += [("results", typed(report.output)), ("report", typed(page) if page is not None else "")]
    _indented(console, _labelled(facts))


def render_estimate(estimate: Estimate, console: Console) -> None:
    """Print the estimate of a run."""
    title = Text.assemble((printable(estimate.name), "bold"), "  ", counted(estimate.rows.ok, "row"), " to send")
    if estimate.rows.invalid:
        title.append(f", {estimate.rows.invalid:,} invalid")
    if estimate.sampled is not None:
        title.append(f" (from a sample of {estimate.sampled:,})")
    console.print(title)
    cost = Text.assemble((usd(estimate.cost_usd.expected), "bold"), f" expected, {_bounds(estimate.cost_usd)}")
    if not estimate.cost_is_complete:
        cost.append(", without models whose price is unknown", "yellow")
    if estimate.eta_seconds is not None:
        cost.append(f"; {duration(estimate.eta_seconds)} at least, by the limits")
    console.print(cost)
    _indented(console, _estimated_models(estimate, wide=console.width >= WIDE))
    names = list(estimate.models)
    facts = []
    for key, name in (("all_strongest_usd", names[-1]), ("all_cheapest_usd", names[0])):
        other = estimate.counterfactual.get(key)
        line = f"{usd(other.expected)} expected, {_bounds(other)}" if other else usd(None)
        facts.append((f"all {name}", line))
    facts += [("invalid", fault) for fault in estimate.faults[:MOST_FAULTS]]
    more = estimate.rows.invalid - len(estimate.faults[:MOST_FAULTS])
    if estimate.faults and more > 0:
        facts.append(("", f"and {more:,} more invalid rows, which `batchrouter check` names"))
    facts += [("note", note) for note in estimate.notes]
    facts.append(("plan", _plan(estimate.plan)))
    _indented(console, _labelled(facts))


def _title(name: str, rows: RowCounts, wall: float, rate: float) -> Text:
    return Text.assemble((printable(name), "bold"), f"  {counted(rows.total, 'row')} in {duration(wall)}, {pace(rate)}")


def _verdict(report: Report) -> Text:
    rows = report.rows
    text = Text()
    text.append(f"{rows.ok:,} ok", "green")
    for count, word in ((rows.failed, "failed"), (rows.invalid, "invalid"), (rows.unsent, "unsent")):
        if count:
            text.append(", ").append(f"{count:,} {word}", "red" if word == "failed" else "yellow")
    if rows.deduplicated:
        text.append(f" ({rows.deduplicated:,} shared another row's answer)")
    if report.spent_usd is None:
        text.append("; ").append("the cost is unknown", "yellow")
    else:
        text.append("; ").append(usd(report.spent_usd), "bold").append(" spent")
        if not report.cost_is_complete:
            text.append(", and some that is unknown", "yellow")
    saved = report.counterfactual.saved_usd
    everything = report.counterfactual.all_strongest_usd
    if saved is not None and everything:
        less = "less" if saved >= 0 else "more"
        text.append("; ").append(f"{share(float(abs(saved) / everything))} {less}", "bold")
        text.append(f" than all by {printable(list(report.models)[-1])}")
    return text


def _comparison(report: Report) -> Table:
    names = list(report.models)
    this = "this run" if report.cost_is_complete or report.spent_usd is None else "this run, at least"
    figures: list[tuple[str, Decimal | None]] = [(this, report.spent_usd)]
    figures.append((f"all {printable(names[-1])}", report.counterfactual.all_strongest_usd))
    if len(names) > 1:
        figures.append((f"all {printable(names[0])}", report.counterfactual.all_cheapest_usd))
    longest = max((float(value) for _, value in figures if value is not None), default=0.0)
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for label, value in figures:
        table.add_row(Text(label), usd(value), _bar(float(value or 0), longest, 30))
    return table


def _models(report: Report, *, wide: bool) -> Table:
    table = _table("model", "rows", "share", "in", "out", "cost", "attempts", "p50", "p95")
    if wide:
        table.add_column("", no_wrap=True)
    for name, model in report.models.items():
        cells: list[RenderableType] = [
            Text(printable(name), "bold"),
            f"{model.rows:,}",
            share(model.share),
            compact(model.prompt_tokens),
            compact(model.completion_tokens),
            usd(model.cost_usd),
            f"{model.attempts:,}",
            duration(model.p50_seconds),
            duration(model.p95_seconds),
        ]
        if wide:
            cells.append(_bar(model.share, 1, 16))
        table.add_row(*cells)
    return table


def _endpoints(report: Report) -> Table:
    table = _table("endpoint", "rows", "attempts", "throttled", "errors", "cost")
    for name, model in report.models.items():
        if model.endpoints:
            table.add_row(Text(printable(name), "dim"))
        for url, endpoint in model.endpoints.items():
            table.add_row(
                Text(f"  {printable(url)}"),
                f"{endpoint.rows:,}",
                f"{endpoint.attempts:,}",
                Text(f"{endpoint.throttled:,}", "yellow" if endpoint.throttled else ""),
                Text(f"{endpoint.errors:,}", "red" if endpoint.errors else ""),
                usd(endpoint.cost_usd),
            )
    return table


def _errors(report: Report) -> Table:
    table = _table("error", "rows")
    table.add_column("for example", overflow="fold")
    for kind, count in report.errors.items():
        example = report.error_examples.get(kind)
        line = "" if example is None else example.line
        table.add_row(Text(printable(kind)), f"{count:,}", Text(printable(line)))
    return table


def _ambiguous(report: Report) -> Table:
    table = _table("possibly billed", "row", "model", "endpoint")
    for row in report.ambiguous[:MOST_AMBIGUOUS]:
        table.add_row(*(Text(printable(cell)) for cell in (row.id, f"{row.row:,}", row.model, row.endpoint)))
    more = len(report.ambiguous) - MOST_AMBIGUOUS
    if more > 0:
        table.add_row(Text(f"and {more:,} more in report.json", "dim"))
    return table


def _estimated_models(estimate: Estimate, *, wide: bool) -> Table:
    table = _table("model", "rows", "in", "out", "cost", "low", "high", "by limits")
    if wide:
        table.add_column("", no_wrap=True)
    for name, model in estimate.models.items():
        cost = model.cost_usd
        cells: list[RenderableType] = [
            Text(printable(name), "bold"),
            f"{model.rows:,}",
            compact(model.prompt_tokens),
            compact(model.completion_tokens.expected),
            usd(cost.expected if cost else None),
            usd(cost.low) if cost else "",
            usd(cost.high) if cost else "",
            duration(model.eta_seconds),
        ]
        if wide:
            cells.append(_bar(model.share, 1, 16))
        table.add_row(*cells)
    return table


def _plan(plan: PlanReport) -> str:
    parts = [plan.strategy] if plan.strategy != "cutoff" else []
    if plan.cutoff is not None:
        parts.append(f"cutoff {plan.cutoff:.6g}")
    parts += [f"{printable(name)} {share(part)}" for name, part in plan.expected_share.items()]
    if plan.pinned:
        parts.append(f"{counted(plan.pinned, 'row')} pinned")
    return ", ".join(parts)


def _bounds(amount: Range) -> str:
    return f"{usd(amount.low)} to {usd(amount.high)}"


def _bar(value: float, longest: float, width: int) -> ProgressBar:
    part = value / longest if longest else 0.0
    return ProgressBar(total=1.0, completed=part, width=width, complete_style="cyan", finished_style="cyan")


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")
    for name in others:
        words = name in ("model", "endpoint")
        table.add_column(name, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    return table


def _labelled(facts: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for label, text in facts:
        if text:
            grid.add_row(Text(printable(label), "dim"), Text(printable(text)))
    return grid


def _indented(console: Console, content: RenderableType) -> None:
    console.print(Padding(content, (1, 0, 0, 2)))
