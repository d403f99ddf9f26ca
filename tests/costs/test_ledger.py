from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from batch.costs.ledger import Ledger
from batch.costs.prices import EXACT, Price
from schemas.plans import Plan
from schemas.reports import Report, Timing
from schemas.results import Status

CHEAP = Price(Decimal("7.692307692307693e-08"), Decimal("6E-7"))
DEAR = Price(Decimal("0.00001"), Decimal("0.00003"), up_to=100)
PRICES = {"cheap": CHEAP, "dear": DEAR}
PLAN = Plan(strategy="share", weakest="cheap", strongest="dear", cutoff=0.5, expected_share={"cheap": 0.5, "dear": 0.5})


class Row(NamedTuple):
    status: Status = "ok"
    model: str | None = "cheap"
    endpoint: str | None = "http://a/v1"
    prompt_tokens: int | None = 10
    completion_tokens: int | None = 5
    latency: float | None = 0.5
    error_kind: str | None = None
    deduplicated: bool = False


ROWS = st.lists(
    st.builds(
        Row,
        status=st.sampled_from(["ok", "ok", "failed", "unsent"]),
        model=st.sampled_from(["cheap", "dear"]),
        endpoint=st.sampled_from(["http://a/v1", "http://b/v1"]),
        prompt_tokens=st.none() | st.integers(0, 10**12),
        completion_tokens=st.none() | st.integers(0, 10**12),
        latency=st.none() | st.floats(0, 1e6),
        error_kind=st.sampled_from([None, "timeout", "budget"]),
        deduplicated=st.booleans(),
    ),
    max_size=30,
)


def ledger_of(rows: Sequence[Row], prices: dict[str, Price | None] | None = None) -> Ledger:
    ledger = Ledger(prices or PRICES)
    for row in rows:
        ledger.add_row(*row)
    return ledger


def report_of(ledger: Ledger) -> Report:
    timing = Timing(wall_seconds=2.0, rows_per_second=1.0, scoring=0.5, dispatch=1.5)
    return ledger.report(name="job", plan=PLAN, timing=timing, versions={}, fingerprint="f", output="out.jsonl")


@given(ROWS)
def test_the_total_is_exactly_the_sum_of_the_rows(rows: list[Row]) -> None:
    """A report's cost is the exact sum of `Price.cost` over the rows that have an answer of their own."""
    total = Decimal(0)
    for row in rows:
        if row.deduplicated or row.model is None or row.status != "ok":
            continue
        cost = PRICES[row.model].cost(row.prompt_tokens, row.completion_tokens)
        total = EXACT.add(total, cost or Decimal(0))
    assert report_of(ledger_of(rows)).cost_usd == total


@given(ROWS, ROWS)
def test_shards_merge_to_the_whole(ours: list[Row], theirs: list[Row]) -> None:
    """Ledgers stored as JSON and merged in any order report what one ledger of all rows reports."""
    whole = report_of(ledger_of(ours + theirs))
    for first, second in ((ours, theirs), (theirs, ours)):
        merged = Ledger.from_json(ledger_of(first).to_json(), PRICES)
        merged.merge(Ledger.from_json(ledger_of(second).to_json(), PRICES))
        assert report_of(merged) == whole


def test_each_row_is_counted_once() -> None:
    """Each row is counted once by status, model and endpoint, and the four statuses add up to the total."""
    ledger = ledger_of(
        [
            Row(),
            Row(model="dear", endpoint="http://b/v1", latency=2.0),
            Row(status="failed", prompt_tokens=None, completion_tokens=None, error_kind="timeout"),
            Row("invalid", None, None, None, None, None, "empty_prompt"),
            Row("unsent", "dear", None, None, None, None, "budget"),
            Row(deduplicated=True),
        ]
    )
    ledger.add_attempts("cheap", "http://a/v1", "throttled")
    ledger.add_attempts("cheap", "http://a/v1", "error")
    ledger.add_attempts("cheap", "http://a/v1", "ok")
    report = report_of(ledger)
    rows = report.rows
    assert (rows.total, rows.ok, rows.failed, rows.invalid, rows.unsent, rows.deduplicated) == (6, 3, 1, 1, 1, 1)
    assert report.errors == {"timeout": 1, "empty_prompt": 1, "budget": 1}
    cheap, dear = report.models["cheap"], report.models["dear"]
    assert (cheap.rows, cheap.failed, cheap.share, cheap.attempts) == (3, 1, 0.6, 3)
    assert (dear.rows, dear.unsent, dear.share, dear.attempts) == (2, 1, 0.4, 0)
    endpoint = cheap.endpoints["http://a/v1"]
    assert (endpoint.rows, endpoint.attempts, endpoint.throttled, endpoint.errors) == (3, 3, 1, 1)
    assert endpoint.cost_usd == CHEAP.cost(10, 5)
    assert dear.p50_seconds is not None
    assert abs(dear.p50_seconds - 2.0) <= 0.01


def test_a_deduplicated_row_is_free_except_in_the_counterfactual() -> None:
    """A deduplicated row adds nothing to the cost, but the counterfactual charges for it."""
    report = report_of(ledger_of([Row(), Row(deduplicated=True)]))
    other = report.counterfactual
    assert report.cost_usd == CHEAP.cost(10, 5)
    assert other.all_strongest_usd == DEAR.total(20, 10)
    assert other.all_cheapest_usd == CHEAP.total(20, 10)
    assert other.saved_usd == DEAR.total(20, 10) - CHEAP.total(10, 5)
    assert report.models["cheap"].prompt_tokens == 20


def test_an_unknown_price_is_not_zero() -> None:
    """If a model has no price, its cost is unknown, the report's cost is incomplete, and no saving is reported."""
    report = report_of(ledger_of([Row(), Row(model="dear")], {"cheap": None, "dear": DEAR}))
    assert report.cost_usd == DEAR.cost(10, 5)
    assert not report.cost_is_complete
    assert report.models["cheap"].cost_usd is None
    assert report.counterfactual.all_cheapest_usd is None
    assert report.counterfactual.all_strongest_usd == DEAR.total(20, 10)
    assert report.counterfactual.saved_usd is None
    assert report.notes == ("the price of cheap is not known; the cost leaves out 1 of its answers",)


def test_answers_without_usage_are_left_out_of_the_saving() -> None:
    """An answer without usage makes the cost incomplete; the saving is computed from the other answers."""
    report = report_of(ledger_of([Row(), Row(prompt_tokens=None, completion_tokens=None)]))
    assert not report.cost_is_complete
    assert report.models["cheap"].cost_usd is None
    assert report.counterfactual.saved_usd == DEAR.total(10, 5) - CHEAP.total(10, 5)
    assert "1 answers of cheap" in report.notes[0]


def test_a_prompt_beyond_the_strongest_models_price_makes_the_comparison_unknown() -> None:
    """A prompt longer than the strongest model's price covers makes the counterfactual unknown."""
    report = report_of(ledger_of([Row(prompt_tokens=101)]))
    assert report.cost_is_complete
    assert report.counterfactual.all_strongest_usd is None
    assert report.counterfactual.saved_usd is None


def test_committed_dollars_outlive_a_change_of_price() -> None:
    """The dollars of a stored ledger do not change if the price differs in a later sitting."""
    stored = ledger_of([Row()]).to_json()
    later = Ledger.from_json(stored, {"cheap": Price(Decimal(1), Decimal(1)), "dear": DEAR})
    assert report_of(later).cost_usd == CHEAP.cost(10, 5)


def test_models_are_listed_cheapest_first_even_without_rows() -> None:
    """A model without rows is in the report too; models keep the job's order."""
    report = report_of(ledger_of([Row(model="dear", endpoint="http://b/v1")]))
    assert list(report.models) == ["cheap", "dear"]
    assert report.models["cheap"].rows == 0
    assert report.models["cheap"].p50_seconds is None


def test_the_report_survives_its_json() -> None:
    """`report.json` has dollars as numbers, with every digit, and reads back as the same report."""
    report = report_of(ledger_of([Row(model="dear")], {"cheap": Price(Decimal("6E-7"), Decimal("6E-7")), "dear": DEAR}))
    written = report.model_dump_json()
    assert '"cost_usd":0.00025' in written
    assert Report.model_validate_json(written) == report


def test_pinned_rows_are_counted() -> None:
    """The plan's report says how many rows were pinned."""
    ledger = Ledger(PRICES)
    ledger.add_row(*Row(), pinned=True)
    ledger.add_row(*Row())
    assert report_of(ledger).plan.pinned == 1
