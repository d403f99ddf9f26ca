"""Runs that stop in the middle, fail in places or run out of money, and what the next sitting does."""

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

# The pipeline looks at its dispatcher ten times a second: in a few looks no more than half of a test's rows go out.
SLOW = tuple({**endpoint, "latency": {"median_seconds": 0.06}} for endpoint in ENDPOINTS)


def narrow(there: JobFolder, **limits: Any) -> list[dict[str, Any]]:
    """The job's models with little in flight, so that there is a middle to stop in."""
    models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
    for model in models:
        for endpoint in model["endpoints"]:
            endpoint["limits"] = {"max_in_flight": 2, **limits}
    return models


def test_ctrl_c_drains_and_the_next_sitting_sends_only_the_rest(tmp_path: Path) -> None:
    """Two interruptions: all that was answered is kept and never sent again, and nothing is ambiguous."""
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


def test_an_interrupted_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    """But for latencies, the results are the same."""
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


def test_endpoints_that_go_away_stop_the_run_and_it_goes_on_elsewhere(tmp_path: Path) -> None:
    """Unreachable for as long as an attempt may take, the run stops, resumable; urls may change in between."""
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
    """Rows that failed stay failed until they are asked for again, and only they are sent then."""
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


def test_what_an_interrupted_retry_of_failed_rows_paid_for_is_in_the_next_results(tmp_path: Path) -> None:
    """Interrupted in the middle of --retry-failed, the next run without it has the new answers and their cost."""
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


def test_who_shares_a_failed_answer_fails_and_is_retried_with_it(tmp_path: Path) -> None:
    """A row that shares a failed row's answer, across shards, ends like it; sent again, both have the new one."""
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
    """Errors, broken connections and half answers cost attempts, not rows; attempts add up to what servers saw."""
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
    """What is spent never passes the cap, rows beyond it are unsent, and a raised cap sends only those."""
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
    """Without max_tokens nobody can say what a row may cost at most."""
    with serve(*ENDPOINTS) as served:
        there = JobFolder(tmp_path, served)
        there.write([{"prompt": "bounded", "params": {"max_tokens": 10}}, {"prompt": "unbounded"}])
        report = there.run(there.job(dispatch={"budget_usd": 1}))
        assert [row["status"] for row in there.results()] == ["ok", "unsent"]
        assert "max_tokens" in there.results()[1]["error"]["message"]
        assert report.errors == {"budget": 1}
        assert served.prompts() == {"bounded": 1}


def without_permission(there: JobFolder) -> list[dict[str, Any]]:
    """The job's models, where the small one's endpoint serves something else."""
    models: list[dict[str, Any]] = there.job().model_dump(mode="json")["models"]
    models[0]["endpoints"][0]["model"] = "another"
    return models


def test_rows_fall_back_when_a_models_pool_refuses_for_good(tmp_path: Path) -> None:
    """They are answered by the fallback, counted and priced there, and the report notes the endpoint that went out."""
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
    """They say why; the same command sends them once the endpoint accepts the key, and nothing else."""
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
    """They are reported as ambiguous; `retry` sends them again, `fail` records that they may have been billed."""
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
    """What a killed process leaves: an intent that nothing follows."""
    from batch.runs.journal.group_fsync import GroupSync

    with GroupSync(enabled=False) as group:
        journal = Journal.open(layout.journal(0, "small"), [url], group)
        journal.intent(row, 1, 0)
        journal.close()


def test_prices_in_these_tests_are_not_binary_fractions() -> None:
    """A float sum would differ, so that equal totals mean exact ones."""
    assert all(Decimal(float(price)) != Decimal(price) for prices in PRICES.values() for price in prices.values())
