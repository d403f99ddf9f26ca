from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from io import StringIO

import pytest
from rich.console import Console

from batch.costs.estimate import ModelLoad, estimate
from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from jobs.terminal.html.report import render_html
from jobs.terminal.report import MOST_AMBIGUOUS, render_console, render_estimate
from schemas.endpoints import ModelSpec
from schemas.plans import Plan
from schemas.reports import Ambiguous, Estimate, Report, RowCounts, Timing

CHEAP = Price(Decimal("6E-7"), Decimal("6E-7"))
DEAR = Price(Decimal("0.00001"), Decimal("0.00003"))
PLAN = Plan(strategy="share", weakest="mixtral-8x7b", strongest="gpt-4-1106-preview", cutoff=0.11625)
NASTY = '<script>alert(1)</script>[bold]\x1b[31m&"'


def report_of(ledger: Ledger, *, name: str = "gsm8k", ambiguous: int = 0, notes: tuple[str, ...] = ()) -> Report:
    return ledger.report(
        name=name,
        plan=PLAN,
        timing=Timing(
            wall_seconds=64.2,
            rows_per_second=10.0,
            scoring=3.5,
            dispatch=60.0,
            finished_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        ),
        versions={"batchrouter": "0.1.0"},
        fingerprint="9f2c61a3",
        output="out/results.jsonl",
        ambiguous=[
            Ambiguous(id=f"{name}-{row}", row=row, model="mixtral-8x7b", endpoint="http://a/v1", cost_usd=None)
            for row in range(ambiguous)
        ],
        notes=notes,
    )


def full_report(name: str = "gsm8k", ambiguous: int = 3) -> Report:
    ledger = Ledger({"mixtral-8x7b": CHEAP, "gpt-4-1106-preview": DEAR})
    for row in range(640):
        model, url = ("mixtral-8x7b", "http://a/v1") if row % 2 else ("gpt-4-1106-preview", "http://b/v1")
        ledger.add_attempts(model, url, "ok")
        ledger.add_row("ok", model, url, 58, 110, 1.5, None, False)
    ledger.add_attempts("mixtral-8x7b", "http://a/v1", "throttled")
    ledger.add_row("failed", "mixtral-8x7b", "http://a/v1", None, None, None, "timeout", False)
    ledger.add_row("invalid", None, None, None, None, None, "empty_prompt", False)
    return report_of(ledger, name=name, ambiguous=ambiguous, notes=(f"a note on {name}",))


def empty_report() -> Report:
    return report_of(Ledger({"only": None}))


def estimate_of(dear: Price | None = DEAR) -> Estimate:
    return estimate(
        name="gsm8k",
        models=[ModelSpec(name="mixtral-8x7b"), ModelSpec(name="gpt-4-1106-preview")],
        prices={"mixtral-8x7b": CHEAP, "gpt-4-1106-preview": dear},
        loads={
            "mixtral-8x7b": ModelLoad(320, 19_000, 80_000),
            "gpt-4-1106-preview": ModelLoad(319, 21_000, 80_000, 19),
        },
        rows=RowCounts(total=640, ok=639, failed=0, invalid=1, unsent=0),
        plan=PLAN,
        sampled=100,
    )


def on_console(shown: Report | Estimate, width: int) -> list[str]:
    file = StringIO()
    console = Console(file=file, width=width, color_system=None)
    if isinstance(shown, Report):
        render_console(shown, console)
    else:
        render_estimate(shown, console)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 120])
def test_the_console_report_fits_and_has_the_main_figures(width: int) -> None:
    """Rows, dollars, savings, models, endpoints, errors, plan and output are there, no line too long, no name cut."""
    lines = on_console(full_report(), width)
    text = "\n".join(lines)
    assert max(map(len, lines)) <= width
    for expected in (
        "640 ok, 1 failed, 1 invalid",
        "49 % less than all by",
        "gpt-4-1106-preview",
        "http://a/v1",
        "timeout",
        "empty_prompt",
        "cutoff 0.11625",
        "out/results.jsonl",
        "a note on gsm8k",
    ):
        assert expected in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 120])
def test_the_console_estimate_fits(width: int) -> None:
    """The estimate has rows, models and assumptions, and no line is too long."""
    lines = on_console(estimate_of(), width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= width
    assert "639 rows to send, 1 invalid (from a sample of 100)" in text
    assert "gpt-4-1106-preview" in text
    assert "19 rows give no max_tokens" in text


def test_an_unknown_cost_is_never_shown_as_zero() -> None:
    """If a price is unknown, the console and the page say so in words."""
    ledger = Ledger({"own": None})
    ledger.add_row("ok", "own", "http://a/v1", 10, 10, 0.1, None, False)
    nothing = report_of(ledger)
    assert "the cost is unknown" in " ".join(on_console(nothing, 80))
    assert "$" not in "".join([*on_console(nothing, 80), *Page(render_html(nothing)).texts])
    assert "unknown" in render_html(nothing)

    ledger = Ledger({"cheap": CHEAP, "own": None})
    for model in ("cheap", "own"):
        ledger.add_row("ok", model, f"http://{model}/v1", 10, 10, 0.1, None, False)
    something = " ".join(on_console(report_of(ledger), 80))
    assert "$0.0000120 spent, and some that is unknown" in something
    assert "this run, at least" in something
    assert "whose price is unknown" in " ".join(on_console(estimate_of(None), 120))


def test_long_lists_are_cut() -> None:
    """Of a thousand ambiguous rows the first are listed, and the others are counted."""
    lines = on_console(full_report(ambiguous=1000), 80)
    assert sum("gsm8k-" in line for line in lines) == MOST_AMBIGUOUS
    assert any("990 more in report.json" in line for line in lines)
    assert "And 900 more in report.json" in render_html(full_report(ambiguous=1000))


def test_each_kind_of_error_is_shown_with_an_example() -> None:
    """Console and page show the first row of each kind with the server's message, also from stored ledgers."""
    ledger = Ledger({"own": CHEAP})
    said = "HTTP 400: unsupported_parameter (max_tokens): Use 'max_completion_tokens' instead."
    for row in (7, 3, 9):
        ledger.add_row("failed", "own", "http://a/v1", None, None, None, "bad_request", False)
        ledger.add_example("bad_request", row, f"r{row}", 400, said)
    later = Ledger({"own": CHEAP})
    later.add_row("failed", "own", "http://a/v1", None, None, None, "bad_request", False)
    later.add_example("bad_request", 11, "r11", 400, "HTTP 400")
    later.merge(Ledger.from_json(ledger.to_json(), {"own": CHEAP}))
    report = report_of(later)
    assert (report.error_examples["bad_request"].id, report.error_examples["bad_request"].row) == ("r3", 3)
    assert f"bad_request 4 r3: {said}" in " ".join(" ".join(on_console(report, 80)).split())
    assert f"r3: {said}" in " ".join(Page(render_html(report)).texts)


def test_the_place_of_a_row_without_an_id_is_shown_once() -> None:
    """Such a row's id is its file and line, and the message of an invalid row begins with the same."""
    ledger = Ledger({"own": CHEAP})
    ledger.add_row("invalid", None, None, None, None, None, "invalid_json", False)
    ledger.add_example("invalid_json", 60, "in.jsonl:61", None, "in.jsonl:61: not JSON")
    report = report_of(ledger)
    assert "invalid_json 1 in.jsonl:61: not JSON" in " ".join(" ".join(on_console(report, 80)).split())
    assert " ".join(Page(render_html(report)).texts).count("in.jsonl:61") == 1


def test_text_in_backticks_is_set_as_code_on_the_page() -> None:
    """Text between two backticks is escaped and set as code; a single backtick stays."""
    notes = ('`input.system: "{<b>}"` sends it', "a ` alone")
    page = render_html(full_report().model_copy(update={"notes": notes}))
    assert "<li><code>input.system: &quot;{&lt;b&gt;}&quot;</code> sends it</li>" in page
    assert "<li>a ` alone</li>" in page


def test_an_empty_run_has_a_report() -> None:
    """The report of a run without a routed row does not divide by zero."""
    assert on_console(empty_report(), 80)
    assert "0 rows" in " ".join(on_console(empty_report(), 80))
    assert "gsm8k" in render_html(empty_report())


def test_names_are_shown_and_not_obeyed() -> None:
    """Markup, escape sequences and HTML in names and ids come out as text."""
    report = full_report(name=NASTY)
    console = "\n".join(on_console(report, 120))
    assert "\x1b" not in console
    assert "<script>alert(1)</script>[bold]" in console
    page = render_html(report)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


class Page(HTMLParser):
    """Collects what a page loads, and checks that its tags close in order."""

    VOID = ("meta", "br", "link", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.texts: list[str] = []
        self.policy = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [name for name in ("src", "href", "srcset", "data") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.parametrize("report", [full_report(), full_report(NASTY, 200), empty_report()], ids=lambda r: r.name[:5])
def test_the_page_stands_alone(report: Report) -> None:
    """The page is well formed, loads nothing, has a policy that forbids loading, and no unfilled placeholder."""
    text = render_html(report)
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert "url(" not in text
    assert "@import" not in text
    assert page.policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "$title" not in text


def test_the_page_has_the_figures() -> None:
    """Headline figures, endpoints, errors, plan, versions and fingerprint are on the page."""
    words = " ".join(Page(render_html(full_report())).texts)
    for expected in (
        "640", "of 642", "$1.27", "1 min 04 s", "10 rows/s", "http://b/v1", "timeout", "share", "0.11625",
        "batchrouter", "0.1.0", "9f2c61a3", "02 January 2026, 03:04 UTC", "Possibly billed without an answer: 3 rows",
    ):  # fmt: skip
        assert expected in words
