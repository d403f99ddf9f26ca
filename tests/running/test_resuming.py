"""Runs that stop in the middle, have failed rows or reach their budget, and what the next sitting does."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch.runs.journal.writer import Journal
from batch.runs.layout import Layout
from jobs.stopped import StoppedError
from tests.job_folder import ENDPOINTS, PRICES, ActAfter, JobFolder, dollars, interrupt_after
from tests.rehearsed import serve
from tests.running.test_pipeline import assert_totals_match

# The pipeline polls its dispatcher ten times a second: within a few polls at most half of a test's rows are sent.
SLOW = tuple({**endpoint, "latency": {"median_seconds": 0.06}} for endpoint in ENDPOINTS)


def narrow(there: JobFolder, **limits: Any) -> list[dict[str, Any]]:
    """The job's models with few requests in flight, so that a run can be stopped in the middle."""
    models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
    for model in models:
        for endpoint in model["endpoints"]:
            endpoint["limits"] = {"max_in_flight": 2, **limits}
    return models


def test_ctrl_c_drains_and_the_next_sitting_sends_only_the_rest(tmp_path: Path) -> None:
    """Over two interruptions every answer is kept, no row is sent twice, and no row is ambiguous."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(120)
        job = there.job(models=narrow(there))
        for stop_after in (20, 20):
            with pytest.raises(StoppedError) as stopped:
                there.run(job, progress=interrupt_after(stop_after))
            assert stopped.value.interrupted
            assert not there.results_path.exists()
        assert 0 < len(served.posts) < 120
        report = there.run(job)
        rows = there.results()
        assert set(served.prompts().values()) == {1}
        assert len(served.posts) == 120
        assert [row["row"] for row in rows] == list(range(120))
        assert {(row["status"], row["attempts"]) for row in rows} == {("ok", 1)}
        assert report.ambiguous == ()
        assert_totals_match(report, rows)


def test_an_interrupted_run_has_the_results_of_an_unbroken_one(tmp_path: Path) -> None:
    """The results are the same except for latencies."""
    with serve(*SLOW) as served:
        whole, broken = JobFolder(tmp_path / "whole", served), JobFolder(tmp_path / "broken", served)
        for there in (whole, broken):
            there.folder.mkdir()
            there.write_prompts(80)
        whole.run()
        with pytest.raises(StoppedError):
            broken.run(broken.job(models=narrow(broken)), progress=interrupt_after(15))
        broken.run()
        assert [row | {"latency_seconds": 0} for row in broken.results()] == [
            row | {"latency_seconds": 0} for row in whole.results()
        ]


def test_endpoints_that_go_away_stop_the_run_and_it_resumes_with_others(tmp_path: Path) -> None:
    """If no endpoint answers for as long as an attempt may take, the run stops; it may be resumed with other URLs."""
    with ExitStack() as gone:
        there = JobFolder(tmp_path, gone.enter_context(serve(*SLOW)))
        there.write_prompts(60)
        job = there.job(models=narrow(there), dispatch={"timeout_seconds": 1})
        with pytest.raises(StoppedError, match="no endpoint has answered for 1 second") as stopped:
            there.run(job, progress=ActAfter(10, gone.close))
        assert not stopped.value.interrupted
    before = there.served.prompts()
    with serve(*ENDPOINTS) as served:
        there.served = served
        report = there.run()
        assert report.rows.ok == 60
        rows = there.results()
        assert [row["row"] for row in rows] == list(range(60))
        assert {row["row"] for row in rows if row["endpoint"] not in served.urls}
        # A row that was in flight when the server went away may have been seen by both.
        twice = set(before) & set(served.prompts())
        assert len(twice) <= 4
        assert before | served.prompts() == Counter(row["content"] for row in rows)


def test_retry_failed_sends_only_failed_rows(tmp_path: Path) -> None:
    """Failed rows stay failed in a plain rerun; `--retry-failed` sends them and no others."""
    flaky = {**ENDPOINTS[0], "faults": {"error_500": 0.5}}
    with serve(flaky, ENDPOINTS[1]) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(60)
        job = there.job(dispatch={"max_attempts": 1})
        first = there.run(job)
        before = there.results()
        failed = {row["id"] for row in before if row["status"] == "failed"}
        assert 0 < len(failed) == first.rows.failed
        assert {row["error"]["kind"] for row in before if row["id"] in failed} == {"server_error"}
        assert_totals_match(first, before)
        served.forget()
        assert there.run(job).rows == first.rows
        assert served.posts == []
        second = there.run(job, retry_failed=True)
        assert {f"r{prompt.split()[0][1:]}" for prompt in served.prompts()} == failed
        assert second.rows.failed < first.rows.failed
        after = there.results()
        assert [row for row in after if row["id"] not in failed] == [row for row in before if row["id"] not in failed]
        assert_totals_match(second, after)


def test_answers_of_an_interrupted_retry_are_in_the_next_results(tmp_path: Path) -> None:
    """After an interrupted --retry-failed, a plain rerun sends nothing and has the new answers and their cost."""
    plan = {"strategy": "pin", "model": "small"}
    with serve({**ENDPOINTS[0], "faults": {"error_500": 0.5}}, ENDPOINTS[1]) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(60)
        first = there.run(there.job(dispatch={"max_attempts": 1}, plan=plan))
    with serve(*SLOW) as served:
        there.served = served
        job = there.job(dispatch={"max_attempts": 1}, plan=plan, models=narrow(there))
        with pytest.raises(StoppedError):
            there.run(job, retry_failed=True, progress=interrupt_after(5))
        paid = len(served.posts)
        assert 0 < paid < first.rows.failed
        served.forget()
        report = there.run(job)
        assert served.posts == []
        assert (report.rows.ok, report.rows.failed) == (first.rows.ok + paid, first.rows.failed - paid)
        assert_totals_match(report, there.results())


def test_a_row_that_shares_a_failed_answer_fails_and_is_retried_with_it(tmp_path: Path) -> None:
    """A row that shares a failed row's answer across shards fails too; after a retry both have the new answer."""
    with serve({**ENDPOINTS[0], "faults": {"error_500": 1}}, ENDPOINTS[1]) as served:
        there = JobFolder(tmp_path, served)
        for name in ("a.jsonl", "b.jsonl"):
            there.write([{"prompt": "same"}], name)
        paths = [str(there.folder / name) for name in ("a.jsonl", "b.jsonl")]
        job = there.job(
            input={"path": paths, "params": {"temperature": 0}},
            plan={"strategy": "pin", "model": "small"},
            dispatch={"max_attempts": 2},
        )
        report = there.run(job)
        rows = there.results()
        assert [(row["status"], row["attempts"]) for row in rows] == [("failed", 2), ("failed", 0)]
        assert (report.rows.failed, report.rows.deduplicated) == (2, 1)
        assert_totals_match(report, rows)
        urls = served.urls
    with serve(*ENDPOINTS) as served:
        there.served = served
        assert served.urls != urls
        models = there.job().model_dump(mode="json")["models"]
        report = there.run(job.model_copy(update={"models": there.job(models=models).models}), retry_failed=True)
        assert [row["status"] for row in there.results()] == ["ok", "ok"]
        assert served.prompts() == {"same": 1}
        assert report.rows.deduplicated == 1


def test_faults_are_retried_until_every_row_is_answered(tmp_path: Path) -> None:
    """Errors, dropped connections and broken answers cost attempts, not rows; attempts are what the servers counted."""
    faulty = {**ENDPOINTS[0], "faults": {"error_500": 0.1, "drop": 0.1, "bad_json": 0.1}}
    with serve(faulty, ENDPOINTS[1]) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(60)
        report = there.run(there.job(dispatch={"max_attempts": 20}))
        rows = there.results()
        assert {row["status"] for row in rows} == {"ok"}
        assert sum(row["attempts"] for row in rows) == len(served.posts) > 60
        small = report.models["small"].endpoints[served.urls[0]]
        assert small.errors == small.attempts - small.rows > 0
        assert_totals_match(report, rows)


def test_a_budget_holds_over_two_sittings(tmp_path: Path) -> None:
    """The cost never exceeds the budget, rows beyond it are unsent, and a raised budget sends only those."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(60, params={"max_tokens": 50})

        def capped(dollars: str) -> Any:
            return there.job(dispatch={"budget_usd": dollars}, plan={"strategy": "pin", "model": "large"})

        first = there.run(capped("0.01"))
        rows = there.results()
        assert 0 < first.rows.unsent < 60
        assert first.rows.unsent + first.rows.ok == 60
        assert first.cost_usd <= Decimal("0.01")
        assert {row["error"]["kind"] for row in rows if row["status"] == "unsent"} == {"budget"}
        assert_totals_match(first, rows)
        sent = len(served.posts)
        assert sent == first.rows.ok
        again = there.run(capped("0.01"))
        assert again.cost_usd <= Decimal("0.01")
        assert again.rows.ok >= first.rows.ok
        whole = there.run(capped("1"))
        assert whole.rows.ok == len(served.posts) == 60
        assert set(served.prompts().values()) == {1}
        assert whole.cost_usd == dollars(there.results())


def test_rows_without_an_upper_bound_are_not_sent_under_a_budget(tmp_path: Path) -> None:
    """Without max_tokens the cost of a row has no upper bound."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write([{"prompt": "bounded", "params": {"max_tokens": 10}}, {"prompt": "unbounded"}])
        report = there.run(there.job(dispatch={"budget_usd": 1}))
        assert [row["status"] for row in there.results()] == ["ok", "unsent"]
        assert "max_tokens" in there.results()[1]["error"]["message"]
        assert report.errors == {"budget": 1}
        assert served.prompts() == {"bounded": 1}


def without_permission(there: JobFolder) -> list[dict[str, Any]]:
    """The job's models, with an endpoint for the small one that does not serve the model it is asked for."""
    models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
    models[0]["endpoints"][0]["model"] = "another"
    return models


def test_rows_fall_back_when_a_models_endpoints_refuse_for_good(tmp_path: Path) -> None:
    """The fallback answers the rows, which count and cost as its own; the report notes the endpoint that refused."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        job = there.job(models=without_permission(there), dispatch={"fallbacks": {"small": ["large"]}})
        report = there.run(job)
        rows = there.results()
        assert {(row["status"], row["model"]) for row in rows} == {("ok", "large")}
        assert report.cost_usd == dollars(rows)
        assert [note for note in report.notes if "small" in note and "model_not_found" in note]
        answered = Counter(post["model"] for post in served.posts)
        assert answered["large"] == 20
        served.forget()
        again = there.run(job)
        assert (again.rows, served.posts) == (report.rows, [])


def test_rows_without_a_fallback_are_unsent_and_sent_later(tmp_path: Path) -> None:
    """Unsent rows have the reason; once the endpoint accepts the key, the same command sends only them."""
    guarded = {**ENDPOINTS[0], "api_key_env": "SMALL_KEY"}
    with serve(guarded, ENDPOINTS[1], environ={"SMALL_KEY": "right"}) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(20)
        report = there.run()
        rows = there.results()
        assert Counter(row["status"] for row in rows) == {"ok": 10, "unsent": 10}
        assert {row["error"]["kind"] for row in rows if row["status"] == "unsent"} == {"refused"}
        assert (report.rows.unsent, report.models["small"].unsent) == (10, 10)
        served.forget()
        models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
        models[0]["endpoints"][0]["api_key_env"] = "KEY_FOR_SMALL"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("KEY_FOR_SMALL", "right")
            again = there.run(there.job(models=models))
        assert again.rows.ok == 20
        assert set(served.prompts().values()) == {1}
        assert {model for model, _ in served.sent()} == {"small"}
        assert len(served.posts) == 10


@pytest.mark.parametrize(("on_ambiguous", "status", "sent"), [("retry", "ok", 1), ("fail", "failed", 0)])
def test_rows_that_were_in_flight_when_a_run_was_killed(
    on_ambiguous: str, status: str, sent: int, tmp_path: Path
) -> None:
    """Such rows are reported as ambiguous; `retry` sends them again, `fail` fails them as possibly billed."""
    with serve(*SLOW) as served:
        there = JobFolder(tmp_path, served)
        there.write_prompts(40)
        dispatch: Mapping[str, Any] = {"on_ambiguous": on_ambiguous}
        plan = {"strategy": "pin", "model": "small"}
        job = there.job(models=narrow(there), dispatch=dispatch, plan=plan)
        with pytest.raises(StoppedError):
            there.run(job, progress=interrupt_after(10))
        done = set(served.prompts())
        row = next(i for i in range(40) if not any(prompt.split()[0] == f"p{i}" for prompt in done))
        leave_in_flight(Layout(there.run_dir), row, served.urls[0])
        served.forget()
        report = there.run(job)
        result = there.results()[row]
        assert result["status"] == status
        assert sum(times for prompt, times in served.prompts().items() if prompt.split()[0] == f"p{row}") == sent
        assert [(one.row, one.model, one.endpoint) for one in report.ambiguous] == [(row, "small", served.urls[0])]
        assert result["attempts"] == 1 + sent
        if status == "failed":
            assert result["error"]["kind"] == "ambiguous"
        assert report.rows.total == 40


def leave_in_flight(layout: Layout, row: int, url: str) -> None:
    """Leave what a killed process leaves: an intent without an outcome."""
    from batch.runs.journal.group_fsync import GroupSync

    with GroupSync(enabled=False) as group:
        journal = Journal.open(layout.journal(0, "small"), [url], group)
        journal.intent(row, 1, 0)
        journal.close()


def test_prices_in_these_tests_are_not_binary_fractions() -> None:
    """Binary floats would add such prices up wrongly, so equal totals show that the sums are exact."""
    assert all(Decimal(float(price)) != Decimal(price) for prices in PRICES.values() for price in prices.values())
