"""Attempts that may have been billed without an answer, from the journal to results, report and budget."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from batch.outcomes import Billed, FailedAttempt, RowOutcome
from batch.runs.journal.replay import replay
from batch.runs.journal.spent import spent
from batch.runs.layout import Layout
from batch.runs.parts import write_part
from schemas.job import OutputSpec
from schemas.plans import Plan
from schemas.reports import Report, Timing
from schemas.results import ErrorInfo
from tests.runs.journals import OpenJournal, answered, given_up
from tests.runs.shards import PRICES, commit, results, row, write_shard

OUTPUT = OutputSpec(path="results.jsonl")
TIMED_OUT = ErrorInfo(kind="timeout", message="no whole answer within 5 seconds")
BODY = b'{"messages":[],"max_tokens":100}'
TOLD, AT_MOST = Billed(10, 50, exact=True), Billed(40, 100, exact=False)


def weak() -> Price:
    price = PRICES["weak"]
    assert price is not None
    return price


def cost(prompt_tokens: int, completion_tokens: int) -> Decimal:
    dollars = weak().cost(prompt_tokens, completion_tokens)
    assert dollars is not None
    return dollars


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Two rows of the weak model; row 0 was answered at its third attempt, row 1 was given up."""
    layout = Layout(tmp_path / "run")
    write_shard(layout, [row(0), row(1)], {"weak": [0, 1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 1, 0)
        journal.attempt(FailedAttempt(0, 1, 0, kind="bad_answer", status=200, latency=0.1, counts=True, billed=TOLD))
        journal.intent(0, 2, 1)
        journal.attempt(FailedAttempt(0, 2, 1, kind="timeout", status=None, latency=5.0, counts=True, billed=AT_MOST))
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 3, 0)
        answered(journal, 0, attempts=3)
        journal.intent(1, 1, 1)
        journal.outcome(
            RowOutcome(
                1,
                status="failed",
                endpoint=1,
                attempts=1,
                latency=5.0,
                error=TIMED_OUT,
                billed=Billed(40, 100, exact=False),
            )
        )
    return layout


def reported(ledger: Ledger) -> Report:
    timing = Timing(wall_seconds=2.0, rows_per_second=1.0, scoring=0.5, dispatch=1.5)
    plan = Plan(strategy="pin", weakest="weak", strongest="weak", cutoff=None)
    return ledger.report(name="job", plan=plan, timing=timing, versions={}, fingerprint="f", output="o")


def test_a_row_costs_what_all_its_attempts_cost(layout: Layout) -> None:
    """A row costs what its attempts in all sittings were billed; an attempt without usage counts at its bound."""
    commit(layout, OUTPUT)
    first, second = results(layout)
    assert Decimal(str(first["cost_usd"])) == cost(10, 5) + cost(10, 50) + cost(40, 100)
    assert Decimal(str(second["cost_usd"])) == cost(40, 100)
    assert (second["prompt_tokens"], second["completion_tokens"]) == (None, None)


def test_report_and_budget_count_the_same_dollars_as_the_rows(layout: Layout) -> None:
    """Results, report and budget agree on the cost; the report, from a stored ledger, states the amount in doubt."""
    committed = commit(layout, OUTPUT)
    total = sum((Decimal(str(r["cost_usd"])) for r in results(layout)), Decimal(0))
    report = reported(Ledger.from_json(committed.ledger, PRICES))
    assert report.cost_usd == total == spent(layout, PRICES)
    assert report.cost_in_doubt_usd == 2 * cost(40, 100)
    assert report.cost_is_complete
    told, doubtful = report.notes
    assert told.startswith("1 attempt paid for without a usable answer cost $0.00")
    assert doubtful.startswith("2 attempts may have been billed without an answer")
    endpoints = report.models["weak"].endpoints
    assert sum(endpoint.cost_usd or 0 for endpoint in endpoints.values()) == total


def test_an_outcome_that_a_later_one_replaces_still_costs(layout: Layout) -> None:
    """The cost of the attempts before a row failed is kept when `--retry-failed` sends it again."""
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(1, 2, 0)
        answered(journal, 1, attempts=2)
    commit(layout, OUTPUT)
    row_1 = results(layout)[1]
    assert row_1["status"] == "ok"
    assert Decimal(str(row_1["cost_usd"])) == cost(40, 100) + cost(10, 5)
    assert spent(layout, PRICES) == sum((Decimal(str(r["cost_usd"])) for r in results(layout)), Decimal(0))


def test_reported_usage_of_a_failed_row_is_shown(tmp_path: Path) -> None:
    """A failed row whose provider reported usage, such as a blocked prompt, has its tokens in the result."""
    layout = Layout(tmp_path / "run")
    write_shard(layout, [row(0)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 1, 0)
        journal.outcome(
            RowOutcome(0, status="failed", endpoint=0, attempts=1, latency=0.1, error=TIMED_OUT, billed=TOLD)
        )
    commit(layout, OUTPUT)
    only = results(layout)[0]
    assert (only["prompt_tokens"], only["completion_tokens"]) == (10, 50)
    assert Decimal(str(only["cost_usd"])) == cost(10, 50)


def test_a_cost_without_a_bound_is_left_out_and_reported(tmp_path: Path) -> None:
    """Without `max_tokens` the cost of a timeout has no bound: no sum includes it, and the cost is incomplete."""
    layout = Layout(tmp_path / "run")
    write_shard(layout, [row(0)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 1, 0)
        journal.attempt(
            FailedAttempt(0, 1, 0, kind="timeout", status=None, latency=5.0, billed=Billed(None, None, exact=False))
        )
        journal.intent(0, 2, 0)
        answered(journal, 0, attempts=2)
    report = reported(Ledger.from_json(commit(layout, OUTPUT).ledger, PRICES))
    assert report.cost_usd == cost(10, 5) == Decimal(str(results(layout)[0]["cost_usd"]))
    assert not report.cost_is_complete
    assert "without max_tokens nothing bounds their cost" in report.notes[0]


def test_old_journals_count_unpriced_attempts_at_the_dearest_request(tmp_path: Path) -> None:
    """Older journals do not hold what an attempt was billed, so the budget counts it at the shard's dearest request."""
    layout = Layout(tmp_path / "run")
    scored = pa.table(
        {"row": [0, 1], "url": ["/v1/chat/completions"] * 2, "body": [BODY, BODY + b" "], "max_tokens": [100, 100]}
    )
    write_part(layout.scored(0), scored)
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 1, 0)
        journal._add(b'"attempt":[0,1,0,"timeout",null,5.000000]}')
        journal.intent(0, 2, 0)
        given_up(journal, 0, attempts=2, error=ErrorInfo(kind="bad_answer", status=200, message="not JSON"))
        journal.intent(1, 1, 0)
        given_up(journal, 1)
    assert replay(layout.journal(0, "weak")).unpriced == 2
    assert spent(layout, PRICES) == 2 * cost(len(BODY) + 1, 100)
