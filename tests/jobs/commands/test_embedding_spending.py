"""The cost of a router's embedding endpoint counts in the budget and in the report, also after a kill."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch.costs.prices import Price
from batch.errors import EmbedderError, SpecError
from batch.routers.embedders.spending_log import SpendingLog, read_spending
from batch.runs.layout import Layout
from jobs.commands.calibrate import calibrate_job
from jobs.commands.estimate import estimate_job
from jobs.terminal.format import usd
from jobs.terminal.html.report import render_html
from schemas.job import JobSpec
from schemas.reports import Report
from tests.job_folder import ENDPOINTS, JobFolder, dollars
from tests.rehearsed import Served, serve
from tests.routers.embedders.endpoint_checkpoint import DIMENSION, MODEL, write_checkpoint

# Dollars per million tokens; a prompt of these jobs has about ten tokens.
PRICE = {"input": "10", "output": "0"}


@pytest.fixture(scope="module")
def vectors() -> Iterator[Served]:
    with serve({"model": MODEL}) as served:
        yield served


@pytest.fixture(scope="module")
def answers() -> Iterator[Served]:
    with serve(*ENDPOINTS) as served:
        yield served


@pytest.fixture
def there(answers: Served, vectors: Served, tmp_path: Path) -> JobFolder:
    answers.forget()
    vectors.forget()
    folder = JobFolder(tmp_path, answers)
    folder.write({"id": f"r{i}", "prompt": f"prompt number {i:03}"} for i in range(40))
    return folder


def job(there: JobFolder, vectors: Served, price: Any = PRICE, **changes: Any) -> JobSpec:
    """A job that sends half of the rows to the strongest model, and embeds eight prompts a request to score them."""
    checkpoint = write_checkpoint(there.folder / "checkpoint")
    embedder = {
        "kind": "endpoint",
        "model": MODEL,
        "dimensions": DIMENSION,
        "url": vectors.urls[0],
        "price": price,
        "limits": {"max_inputs": 8, "max_in_flight": 1},
    }
    router = {"kind": "correctness", "checkpoint": checkpoint, "embedder": embedder}
    params = {"path": str(there.folder / "prompts.jsonl"), "params": {"max_tokens": 20}}
    return there.job(router=router, input=params, **changes)


def embedded_tokens(vectors: Served) -> int:
    """Prompt tokens that the rehearsed endpoint counts for the texts it got: a quarter of their bytes, rounded up."""
    return sum(-(-len(text.encode()) // 4) for text in sent(vectors))


def sent(vectors: Served) -> list[str]:
    """Every text that the embedding endpoint got."""
    texts: list[str] = []
    for post in vectors.posts:
        texts += [post["input"]] if isinstance(post["input"], str) else post["input"]
    return texts


def with_parts(report: Report) -> Decimal:
    """The sum of the costs of the report's parts."""
    assert report.embeddings is not None
    assert report.embeddings.cost_usd is not None
    return report.embeddings.cost_usd + sum(
        (model.cost_usd or Decimal(0) for model in report.models.values()), Decimal(0)
    )


def test_the_report_counts_what_routing_cost(there: JobFolder, vectors: Served) -> None:
    """The report has the embedder's prompts, tokens and dollars, and includes them in the cost and the saving."""
    report = there.run(job(there, vectors))
    assert report.embeddings is not None
    assert (report.embeddings.model, report.embeddings.inputs, report.embeddings.in_doubt) == (MODEL, 40, 0)
    assert report.embeddings.prompt_tokens == embedded_tokens(vectors)
    assert report.embeddings.cost_usd == Decimal(embedded_tokens(vectors)) * Decimal("0.00001")
    assert report.cost_usd == with_parts(report) == dollars(there.results()) + report.embeddings.cost_usd
    assert report.cost_is_complete
    strongest = report.counterfactual.all_strongest_usd
    assert strongest is not None
    assert report.counterfactual.saved_usd == strongest - report.cost_usd
    assert "embeddings for its router: 40 prompts by vec" in render_html(report)


def test_a_second_sitting_counts_the_first_one_once(there: JobFolder, vectors: Served) -> None:
    """Rerunning the finished job embeds nothing and reports the same dollars."""
    first = there.run(job(there, vectors))
    again = there.run(job(there, vectors))
    assert len(sent(vectors)) == 40
    assert (again.cost_usd, again.embeddings) == (first.cost_usd, first.embeddings)


def test_an_unknown_price_of_the_embedder_is_not_zero(there: JobFolder, vectors: Served) -> None:
    """The report's cost is marked as incomplete, and no saving is claimed."""
    report = there.run(job(there, vectors, price=None))
    assert report.embeddings is not None
    assert report.embeddings.cost_usd is None
    assert report.embeddings.prompt_tokens == embedded_tokens(vectors)
    assert not report.cost_is_complete
    assert report.counterfactual.saved_usd is None


def test_a_budget_needs_the_embedders_price(there: JobFolder, vectors: Served) -> None:
    """Without the embedder's price, as without a model's, the job is refused before anything is sent."""
    with pytest.raises(SpecError, match=f"^dispatch.budget_usd needs a price for {MODEL}$"):
        there.run(job(there, vectors, price=None, dispatch={"budget_usd": "1"}))
    assert vectors.posts == []


def test_embeddings_and_answers_share_one_budget(there: JobFolder, vectors: Served) -> None:
    """Dollars spent on embeddings are not left for answers, and both together stay within the budget."""
    whole = there.run(job(there, vectors))
    assert whole.embeddings is not None
    assert whole.embeddings.cost_usd is not None
    vectors.forget()
    cap = whole.embeddings.cost_usd + (whole.cost_usd - whole.embeddings.cost_usd) / 2
    report = there.run(job(there, vectors, dispatch={"budget_usd": str(cap)}), fresh=True)
    assert report.rows.ok > 0
    assert report.rows.unsent > 0
    assert report.cost_usd <= cap
    assert report.cost_usd == with_parts(report)


def test_a_budget_that_embeddings_use_up_stops_the_run(there: JobFolder, vectors: Served) -> None:
    """No request that might exceed the budget is sent; with a larger budget the same command keeps its vectors."""
    tight = job(there, vectors, dispatch={"budget_usd": "0.0015"})
    with pytest.raises(
        EmbedderError, match=r"dispatch\.budget_usd does not cover embedding .*rerun the same command to resume"
    ):
        there.run(tight)
    assert 0 < len(sent(vectors)) < 40
    assert Decimal(embedded_tokens(vectors)) * Decimal("0.00001") <= Decimal("0.0015")
    assert there.served.posts == []
    report = there.run(job(there, vectors, dispatch={"budget_usd": "5"}))
    assert report.rows.ok == 40
    assert len(sent(vectors)) == len(set(sent(vectors))) == 40
    assert report.embeddings is not None
    assert report.embeddings.inputs == 40
    assert report.cost_usd == with_parts(report)


def test_what_was_in_flight_at_a_kill_counts_against_the_budget(there: JobFolder, vectors: Served) -> None:
    """A killed sitting's prompts may have been billed: less of the budget is left, and the report counts them."""
    with pytest.raises(EmbedderError):
        there.run(job(there, vectors, dispatch={"budget_usd": "0.0000001"}))
    log = Layout(there.run_dir).embeddings
    price = Price(Decimal("0.00001"), Decimal(0))
    killed = SpendingLog(log, MODEL, price)
    killed.sent(3, 90)
    killed.close()
    assert read_spending(log).usd == Decimal("0.0009")
    with pytest.raises(EmbedderError, match=r"up to \$[0-9.]+ does not fit into the \$0\.0001[0-9]* left"):
        there.run(job(there, vectors, dispatch={"budget_usd": "0.001"}))
    assert vectors.posts == []
    report = there.run(job(there, vectors))
    assert report.embeddings is not None
    assert (report.embeddings.inputs, report.embeddings.in_doubt) == (43, 3)


def test_an_estimate_reports_what_it_has_paid(there: JobFolder, vectors: Served) -> None:
    """`estimate` has prompts embedded for real, and its note says that `run` will pay for them again."""
    (note,) = [note for note in estimate_job(job(there, vectors)).notes if "embedded" in note]
    cost = usd(Decimal(embedded_tokens(vectors)) * Decimal("0.00001"))
    assert note.startswith(
        f"embedded 40 prompts by vec: {embedded_tokens(vectors):,} tokens, {cost}; `run` pays for them"
    )


def test_calibrate_reports_what_it_has_paid(there: JobFolder, vectors: Served) -> None:
    """`calibrate` has the same note as `estimate`."""
    (note,) = calibrate_job(job(there, vectors), [0.5]).notes
    assert note.startswith("embedded 40 prompts by vec: ")


@pytest.mark.real
def test_an_actor_records_what_it_spends(there: JobFolder, vectors: Served) -> None:
    """On Ray the scoring actor's spending goes to the same log and the same budget."""
    report = there.run(job(there, vectors, engine="ray", dispatch={"budget_usd": "5"}))
    assert report.rows.ok == 40
    assert report.embeddings is not None
    assert report.embeddings.inputs == 40
    assert report.cost_usd == with_parts(report)
