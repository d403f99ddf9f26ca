from decimal import Decimal

import pytest

from batch.costs.estimate import ModelLoad, completion_range, estimate, eta_seconds
from batch.costs.prices import Price
from schemas.endpoints import EndpointSpec, LimitsSpec, ModelSpec
from schemas.plans import Plan
from schemas.reports import Estimate, Range, RowCounts

PLAN = Plan(strategy="share", weakest="cheap", strongest="dear", cutoff=0.5)


def endpoint(**limits: float) -> EndpointSpec:
    return EndpointSpec(url="http://x/v1", limits=LimitsSpec.model_validate(limits))


def estimate_of(loads: dict[str, ModelLoad], dear: Price | None) -> Estimate:
    models = [ModelSpec(name="cheap", endpoints=(endpoint(rpm=600),)), ModelSpec(name="dear")]
    prices = {"cheap": Price(Decimal("1E-6"), Decimal("2E-6")), "dear": dear}
    sent = sum(load.rows for load in loads.values())
    rows = RowCounts(total=sent, ok=sent, failed=0, invalid=0, unsent=0)
    return estimate(name="job", models=models, prices=prices, loads=loads, rows=rows, plan=PLAN)


@pytest.mark.parametrize(
    ("load", "tokens"),
    [
        (ModelLoad(10, 0, max_tokens=2560), Range(low=10, expected=1200, high=2560)),
        (ModelLoad(10, 0, max_tokens=80), Range(low=10, expected=80, high=80)),
        (ModelLoad(10, 0, max_tokens=0, unlimited=10), Range(low=10, expected=1200, high=10240)),
        (ModelLoad(10, 0, max_tokens=0, embeddings=10), Range(low=0, expected=0, high=0)),
        (ModelLoad(3, 0, max_tokens=50, unlimited=1, embeddings=1), Range(low=2, expected=170, high=1074)),
    ],
)
def test_answers_lie_between_a_token_and_their_limit(load: ModelLoad, tokens: Range) -> None:
    """An answer has at least 1 token, 120 expected, and at most `max_tokens`, or 1,024 if there is no such limit."""
    assert completion_range(load) == tokens


@pytest.mark.parametrize(
    ("endpoints", "seconds"),
    [
        ((endpoint(rpm=60),), 100),
        ((endpoint(rpm=60), endpoint(rpm=30)), 100 * 60 / 90),
        ((endpoint(tpm=6_000),), 500),
        ((endpoint(rpm=60, tpm=6_000),), 500),
        ((endpoint(rpm=60, input_tpm=6_000, output_tpm=3_000),), 400),
        ((endpoint(tpm=60_000, output_tpm=600),), 1000),
        ((endpoint(rpm=60), endpoint()), None),
    ],
)
def test_the_limits_set_the_time(endpoints: tuple[EndpointSpec, ...], seconds: float | None) -> None:
    """A pool is as fast as its endpoints together, each at its tightest limit; unknown if one has no limit."""
    expected = None if seconds is None else pytest.approx(seconds)
    assert eta_seconds(endpoints, 100, prompt_tokens=40_000, completion_tokens=10_000) == expected


def test_a_model_without_rows_takes_no_time() -> None:
    assert eta_seconds((endpoint(),), 0, 0, 0) == 0


def test_costs_add_up() -> None:
    """The estimate's cost is the sum of its models', and the counterfactual sends all rows to one model."""
    result = estimate_of(
        {"cheap": ModelLoad(600, 6000, 60_000), "dear": ModelLoad(200, 2000, 20_000)},
        Price(Decimal("1E-5"), Decimal("2E-5")),
    )
    cheap, dear = result.models["cheap"].cost_usd, result.models["dear"].cost_usd
    assert cheap is not None
    assert dear is not None
    assert cheap.high == pytest.approx(0.006 + 0.12)
    assert result.cost_usd.expected == pytest.approx(cheap.expected + dear.expected)
    strongest = result.counterfactual["all_strongest_usd"]
    assert strongest is not None
    assert strongest.high == pytest.approx(0.08 + 1.6)
    assert result.models["cheap"].share == 0.75
    assert result.eta_seconds == pytest.approx(60)
    assert result.cost_is_complete


def test_an_unknown_price_is_said() -> None:
    """A model without a price has no cost, makes the estimate incomplete, and is named in a note."""
    result = estimate_of({"cheap": ModelLoad(1, 10, 10), "dear": ModelLoad(1, 10, 0, unlimited=1)}, None)
    assert result.models["dear"].cost_usd is None
    assert not result.cost_is_complete
    assert result.counterfactual["all_strongest_usd"] is None
    assert any("price of dear is not known" in note for note in result.notes)
    assert any("no max_tokens" in note for note in result.notes)


def test_the_price_of_a_model_without_rows_may_be_unknown() -> None:
    """A model that gets no rows does not make the cost incomplete."""
    assert estimate_of({"cheap": ModelLoad(1, 10, 10)}, None).cost_is_complete


def test_a_sample_is_scaled() -> None:
    """The load of a sample is scaled to the whole input."""
    assert ModelLoad(10, 155, 1000, 2, 1).scaled(2.5) == ModelLoad(25, 388, 2500, 5, 2)
