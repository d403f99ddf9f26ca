"""The report as one HTML page, light or dark, without scripts and without anything loaded from elsewhere."""

import html
from collections.abc import Iterable, Sequence
from decimal import Decimal
from importlib.resources import files
from string import Template

from jobs.terminal.format import UNKNOWN, compact, counted, duration, embedded, pace, share, usd
from jobs.terminal.printable import printable
from schemas.reports import EndpointReport, ModelReport, Report

# Keeps the page readable; report.json has all of them.
MOST_AMBIGUOUS = 100


def escape(text: str) -> str:
    """Text escaped for HTML; characters that cannot be seen or change the direction of text are escaped too."""
    return html.escape(printable(text))


def render_html(report: Report) -> str:
    """Render the page. Every name, id, URL and note in it is escaped."""
    finished = report.timing.finished_at
    body = (
        _headline(report),
        _rows(report),
        _comparison(report),
        _models(report),
        _endpoints(report),
        _errors(report),
        _ambiguous(report),
        _notes(report),
        f'<div class="pair">{_plan(report)}{_timing(report)}</div>',
        _origin(report),
    )
    template = Template(files("jobs.terminal.html").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(report.name),
        subtitle=f"Batch routing report{f', {finished:%d %B %Y, %H:%M %Z}' if finished else ''}",
        body="\n".join(part for part in body if part),
    )


def _headline(report: Report) -> str:
    rows, timing = report.rows, report.timing
    saved, everything = report.counterfactual.saved_usd, report.counterfactual.all_strongest_usd
    strongest = list(report.models)[-1]
    percent = share(float(abs(saved) / everything)) if saved is not None and everything else None
    word = "Saved" if saved is None or saved >= 0 else "Spent more"
    incomplete = "" if report.cost_is_complete else "at least: some answers have no known cost"
    if report.spent_usd is None:
        incomplete = "no answer has a known cost"
    per_row = usd(report.cost_usd / rows.ok) + " an answer" if rows.ok and report.cost_is_complete else incomplete
    figures = (
        ("Rows answered", f"{rows.ok:,}", f"of {rows.total:,}, {share(rows.ok / rows.total if rows.total else 0)}"),
        ("Cost", usd(report.spent_usd), per_row),
        (
            word,
            usd(abs(saved)) if saved is not None else UNKNOWN,
            f"{percent} of what all by {strongest} costs" if percent else f"against all by {strongest}",
        ),
        ("Time", duration(timing.wall_seconds), pace(timing.rows_per_second)),
    )
    cells = "".join(
        f'<div class="figure"><dt>{escape(label)}</dt><dd>{escape(value)}</dd><p>{escape(beneath)}</p></div>'
        for label, value, beneath in figures
    )
    return f'<dl class="figures">{cells}</dl>'


def _rows(report: Report) -> str:
    rows = report.rows
    parts = (
        ("ok", rows.ok, "good"),
        ("failed", rows.failed, "bad"),
        ("invalid", rows.invalid, "warn"),
        ("unsent", rows.unsent, "idle"),
    )
    shared = f"{counted(rows.deduplicated, 'row')} shared another row's answer." if rows.deduplicated else ""
    return _section("Rows", _split(parts) + (f'<p class="quiet">{shared}</p>' if shared else ""))


def _comparison(report: Report) -> str:
    names, other = list(report.models), report.counterfactual
    this = "This run" if report.cost_is_complete or report.spent_usd is None else "This run, at least"
    figures = [(this, report.spent_usd, ""), (f"All by {names[-1]}", other.all_strongest_usd, " other")]
    if len(names) > 1:
        figures.append((f"All by {names[0]}", other.all_cheapest_usd, " other"))
    longest = max((value for _, value, _ in figures if value is not None), default=Decimal(0))
    lines = "".join(
        f"<span>{escape(label)}</span>{_bar(_ratio(value, longest), kind)}<b>{escape(usd(value))}</b>"
        for label, value, kind in figures
    )
    of_this = f" Of this run, embeddings for its router: {embedded(report.embeddings)}." if report.embeddings else ""
    sentence = f"Cost of the answered rows, at the tokens that they really had and at list prices.{of_this}"
    note = f'<p class="quiet">{escape(sentence)}</p>'
    return _section("What it cost, and would have cost", f'<div class="compare">{lines}</div>{note}')


def _models(report: Report) -> str:
    dearest = max((m.cost_usd for m in report.models.values() if m.cost_usd is not None), default=Decimal(0))
    lines = [_model(name, model, dearest) for name, model in report.models.items()]
    columns = ("Model", "Rows", "", "Cost", "", "Tokens in", "Tokens out", "Attempts", "p50", "p95")
    return _section("Models", _table(columns, lines, words=("Model",)))


def _model(name: str, model: ModelReport, dearest: Decimal) -> str:
    trouble = [f"{count:,} {word}" for count, word in ((model.failed, "failed"), (model.unsent, "unsent")) if count]
    beneath = f'<br><span class="quiet">{", ".join(trouble)}</span>' if trouble else ""
    numbers = (
        compact(model.prompt_tokens),
        compact(model.completion_tokens),
        f"{model.attempts:,}",
        duration(model.p50_seconds),
        duration(model.p95_seconds),
    )
    return (
        f'<tr><td class="name"><b>{escape(name)}</b>{beneath}</td>'
        f"{_number(f'{model.rows:,}')}<td>{_bar(model.share)}</td>"
        f"{_number(usd(model.cost_usd))}<td>{_bar(_ratio(model.cost_usd, dearest))}</td>"
        f"{''.join(map(_number, numbers))}</tr>"
    )


def _endpoints(report: Report) -> str:
    columns = ("Endpoint", "Rows", "Attempts", "Throttled", "Errors", "Cost")
    lines = []
    for name, model in report.models.items():
        if model.endpoints:
            lines.append(f'<tr class="group"><td colspan="{len(columns)}">{escape(name)}</td></tr>')
        lines += [_endpoint(url, endpoint) for url, endpoint in model.endpoints.items()]
    return _section("Endpoints", _table(columns, lines, words=("Endpoint",))) if lines else ""


def _endpoint(url: str, endpoint: EndpointReport) -> str:
    cells = (
        _name(url),
        _number(f"{endpoint.rows:,}"),
        _number(f"{endpoint.attempts:,}"),
        _number(f"{endpoint.throttled:,}", "caution" if endpoint.throttled else ""),
        _number(f"{endpoint.errors:,}", "alert" if endpoint.errors else ""),
        _number(usd(endpoint.cost_usd)),
    )
    return f'<tr class="under">{"".join(cells)}</tr>'


def _errors(report: Report) -> str:
    if not report.errors:
        return ""
    most = max(report.errors.values())
    lines = [
        f"<tr>{_name(kind)}{_number(f'{count:,}')}<td>{_bar(count / most, ' other')}</td>{_example(report, kind)}</tr>"
        for kind, count in report.errors.items()
    ]
    columns = ("Reason", "Rows", "", "For example")
    return _section("Rows without an answer", _table(columns, lines, words=("Reason", "For example")))


def _example(report: Report, kind: str) -> str:
    example = report.error_examples.get(kind)
    return "<td></td>" if example is None else _name(example.line)


def _ambiguous(report: Report) -> str:
    if not report.ambiguous:
        return ""
    lines = [
        f"<tr>{_name(row.id)}{_number(f'{row.row:,}')}{_name(row.model)}{_name(row.endpoint)}"
        f"{_number(usd(row.cost_usd))}</tr>"
        for row in report.ambiguous[:MOST_AMBIGUOUS]
    ]
    columns = ("Id", "Row", "Model", "Endpoint", "At most")
    why = "These rows were in flight when an earlier sitting was killed, so their outcome is unknown."
    more = len(report.ambiguous) - MOST_AMBIGUOUS
    rest = f'<p class="quiet">And {more:,} more in report.json.</p>' if more > 0 else ""
    table = _table(columns, lines, words=("Id", "Model", "Endpoint"))
    title = f"Possibly billed without an answer: {counted(len(report.ambiguous), 'row')}"
    return _section(title, f'<p class="quiet">{why}</p>{table}{rest}')


def _notes(report: Report) -> str:
    items = "".join(f"<li>{_with_code(note)}</li>" for note in report.notes)
    return _section("Notes", f'<ul class="notes">{items}</ul>') if items else ""


def _plan(report: Report) -> str:
    plan = report.plan
    facts = [("Strategy", plan.strategy)]
    if plan.cutoff is not None:
        facts.append(("Cutoff", f"{plan.cutoff:.6g}"))
    facts += [(name, f"{share(part)} expected") for name, part in plan.expected_share.items()]
    if plan.pinned:
        facts.append(("Pinned", f"{counted(plan.pinned, 'row')}, by the row itself or by a rule"))
    return _section("Plan", _facts(facts))


def _timing(report: Report) -> str:
    timing = report.timing
    facts = [
        ("Reading and scoring", duration(timing.scoring)),
        ("Sending", duration(timing.dispatch)),
        ("Total", duration(timing.wall_seconds)),
    ]
    return _section("Time", _facts(facts))


def _origin(report: Report) -> str:
    facts = [("Results", report.output)] if report.output else []
    facts.append(("Job fingerprint", report.fingerprint))
    facts += list(report.versions.items())
    return _section("Results and versions", _facts(facts))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _table(columns: Sequence[str], lines: Iterable[str], *, words: Sequence[str]) -> str:
    heads = "".join(f"<th>{escape(c)}</th>" if c in words else f'<th class="n">{escape(c)}</th>' for c in columns)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _name(text: str) -> str:
    return f'<td class="name">{escape(text)}</td>'


def _with_code(text: str) -> str:
    """Escaped text, with the parts between two backticks set as code."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if position % 2 else part for position, part in enumerate(parts))


def _number(text: str, kind: str = "") -> str:
    return f'<td class="n {kind}">{escape(text)}</td>' if kind else f'<td class="n">{escape(text)}</td>'


def _bar(part: float, kind: str = "") -> str:
    return f'<span class="bar{kind}"><i style="width:{100 * part:.2f}%"></i></span>'


def _split(parts: Iterable[tuple[str, int, str]]) -> str:
    some = [(label, count, kind) for label, count, kind in parts if count]
    bars = "".join(f'<i class="{kind}" style="flex:{count} 0 0"></i>' for _, count, kind in some)
    legend = "".join(f'<li><i class="{kind}"></i><b>{count:,}</b> {escape(label)}</li>' for label, count, kind in some)
    return f'<div class="split">{bars}</div><ul class="legend">{legend}</ul>'


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return '<dl class="facts">' + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts) + "</dl>"


def _ratio(value: Decimal | None, longest: Decimal) -> float:
    return float(value / longest) if value is not None and longest else 0.0
