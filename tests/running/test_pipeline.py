"""A whole run in this process, from the input to the report, against rehearsed endpoints."""

import json
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from batch.errors import FingerprintError
from schemas.reports import Report
from tests.job_folder import ENDPOINTS, PRICES, JobFolder, dollars
from tests.rehearsed import Served, serve


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Served]:
    """Endpoints without faults, which answer with the prompt."""
    with serve(*ENDPOINTS) as served:
        yield served


@pytest.fixture
def there(endpoints: Served, tmp_path: Path) -> JobFolder:
    endpoints.forget()
    return JobFolder(tmp_path, endpoints)


def assert_totals_match(report: Report, rows: list[dict[str, Any]]) -> None:
    """Every figure of the report is the sum over the result rows; dollars to the last digit."""
    statuses = Counter(row["status"] for row in rows)
    counts = report.rows
    assert counts.total == len(rows) == counts.ok + counts.failed + counts.invalid + counts.unsent
    assert statuses == Counter(ok=counts.ok, failed=counts.failed, invalid=counts.invalid, unsent=counts.unsent)
    assert report.cost_usd == dollars(rows)
    for name, model in report.models.items():
        mine = [row for row in rows if row["model"] == name]
        assert model.rows == len(mine)
        assert model.failed == sum(row["status"] == "failed" for row in mine)
        assert model.unsent == sum(row["status"] == "unsent" for row in mine)
        assert model.prompt_tokens == sum(row["prompt_tokens"] or 0 for row in mine)
        assert model.completion_tokens == sum(row["completion_tokens"] or 0 for row in mine)
        assert model.cost_usd == dollars(mine)
        assert model.attempts == sum(row["attempts"] for row in mine)
        for url, endpoint in model.endpoints.items():
            here = [row for row in mine if row["endpoint"] == url]
            assert endpoint.rows == len(here)
            assert endpoint.cost_usd == dollars(here)


def test_every_row_comes_out_once_and_in_order(there: JobFolder) -> None:
    """Each prompt is sent once, each row has its own answer, and ids, rows and carried columns are the input's."""
    there.write_prompts(200, topic="facts")
    report = there.run()
    rows = there.results()
    assert [row["row"] for row in rows] == list(range(200))
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(200)]
    assert all(row["content"].startswith(f"p{i}") for i, row in enumerate(rows))
    assert {row["topic"] for row in rows} == {"facts"}
    assert set(there.served.prompts().values()) == {1}
    assert len(there.served.posts) == 200
    assert_totals_match(report, rows)


def test_a_row_costs_its_tokens_at_its_models_price(there: JobFolder) -> None:
    """Costs are exact to the last digit; a counterfactual is the cost of all rows at one model's price."""
    there.write_prompts(30)
    report = there.run()
    million = Decimal(1_000_000)

    def cost(row: dict[str, Any], model: str) -> Decimal:
        price = PRICES[model]
        prompt, completion = (Decimal(row[f"{kind}_tokens"]) for kind in ("prompt", "completion"))
        return (Decimal(price["input"]) * prompt + Decimal(price["output"]) * completion) / million

    rows = there.results()
    assert [row["cost_usd"] for row in rows] == [cost(row, row["model"]) for row in rows]
    assert report.counterfactual.all_strongest_usd == sum(cost(row, "large") for row in rows)
    assert report.counterfactual.all_cheapest_usd == sum(cost(row, "small") for row in rows)


@pytest.mark.parametrize("strong", [0, 0.3, 0.5, 1])
def test_a_share_is_exact_though_all_scores_are_equal(strong: float, there: JobFolder) -> None:
    """Of 25 rows with one score, the first round(strong * 25) go to the strongest model."""
    there.write_prompts(25)
    report = there.run(
        there.job(router={"kind": "constant", "value": 0.5}, plan={"strategy": "share", "strong": strong})
    )
    wanted = round(strong * 25)
    assert [row["model"] for row in there.results()] == ["large"] * wanted + ["small"] * (25 - wanted)
    assert {name: model.rows for name, model in report.models.items()} == {"small": 25 - wanted, "large": wanted}


def test_rows_may_choose_for_themselves(there: JobFolder) -> None:
    """A model's name or alias pins a row, `router-length-0.5` routes it by its own cutoff; the plan routes the rest."""
    models = there.job().model_dump(mode="json")["models"]
    models[1]["aliases"] = ["gpt-4"]
    there.write(
        [
            {"prompt": "by name", "model": "small"},
            {"prompt": "by alias", "model": "gpt-4"},
            {"prompt": "word " * 100, "model": "router-length-0.5"},
            {"prompt": "short", "model": "router-length-0.5"},
            {"prompt": "unknown", "model": "gpt-5"},
            {"prompt": "left to the plan"},
        ]
    )
    report = there.run(there.job(models=models, plan={"strategy": "share", "strong": 0}))
    rows = there.results()
    assert [row["model"] for row in rows] == ["small", "large", "large", "small", None, "small"]
    assert rows[4]["error"]["kind"] == "unknown_model"
    assert report.plan.pinned == 2
    assert_totals_match(report, rows)


def test_bad_rows_are_recorded_and_cost_nothing(there: JobFolder) -> None:
    """A repeated id, half a line and a number for a prompt make rows `invalid`, with a reason, and are not sent."""
    there.write(
        [{"key": "a", "prompt": "one"}, {"key": "a", "prompt": "two"}, '{"prompt": ', {"key": "b", "prompt": 7}]
    )
    report = there.run(there.job(input={"path": str(there.folder / "prompts.jsonl"), "id_column": "key"}))
    rows = there.results()
    assert [row["status"] for row in rows] == ["ok", "invalid", "invalid", "invalid"]
    assert [row["error"]["kind"] for row in rows[1:]] == ["duplicate_id", "invalid_json", "wrong_type"]
    assert "prompts.jsonl:2: key repeats that of prompts.jsonl:1; " in rows[1]["error"]["message"]
    for line, row in enumerate(rows[1:], 2):
        assert row["error"]["message"].startswith(f"prompts.jsonl:{line}: ")
    assert there.served.prompts() == {"one": 1}
    assert report.errors == {"duplicate_id": 1, "invalid_json": 1, "wrong_type": 1}
    assert_totals_match(report, rows)


@pytest.mark.parametrize(
    ("dedup", "temperature", "sent"), [("auto", 0, 1), ("auto", 1, 4), ("on", 1, 1), ("off", 0, 4)]
)
def test_equal_requests_are_sent_once(dedup: str, temperature: int, sent: int, there: JobFolder) -> None:
    """In all shards; by default at temperature 0 only. A row that shares an answer has all of it and costs nothing."""
    for name in ("a.jsonl", "b.jsonl"):
        there.write([{"prompt": "same"}, {"prompt": "same"}, {"prompt": f"own of {name}"}], name)
    report = there.run(
        there.job(
            input={
                "path": [str(there.folder / "a.jsonl"), str(there.folder / "b.jsonl")],
                "params": {"temperature": temperature},
            },
            plan={"strategy": "pin", "model": "large"},
            dispatch={"dedup": dedup},
        )
    )
    rows = there.results()
    assert there.served.prompts() == {"same": sent, "own of a.jsonl": 1, "own of b.jsonl": 1}
    assert [row["content"] for row in rows] == ["same", "same", "own of a.jsonl", "same", "same", "own of b.jsonl"]
    assert [row["status"] for row in rows] == ["ok"] * 6
    assert report.rows.deduplicated == 4 - sent
    assert sum(row["cost_usd"] == 0 and row["attempts"] == 0 for row in rows) == 4 - sent
    assert_totals_match(report, rows)


def test_embeddings_are_embedded(there: JobFolder) -> None:
    """Rows with `input` go to /v1/embeddings; vectors are in `response`, `content` is null, prompt tokens are paid."""
    there.write({"id": str(i), "input": f"text {i}"} for i in range(5))
    report = there.run(there.job(plan={"strategy": "pin", "model": "small"}))
    rows = there.results()
    assert all(len(row["response"]["data"][0]["embedding"]) == 64 for row in rows)
    assert {(row["content"], row["completion_tokens"]) for row in rows} == {(None, 0)}
    assert all(row["cost_usd"] > 0 for row in rows)
    assert_totals_match(report, rows)


def test_carried_columns_can_be_left_out(there: JobFolder) -> None:
    """`output.carry: false` leaves the input's other columns behind."""
    there.write_prompts(3, topic="facts")
    there.run(there.job(output={"path": str(there.results_path), "carry": False}))
    assert all("topic" not in row for row in there.results())


def test_parquet_holds_what_jsonl_holds(there: JobFolder) -> None:
    """Parquet has the same rows as JSON Lines, with carried columns typed."""
    import pyarrow.parquet as pq

    there.write([{"id": f"r{i}", "prompt": f"p{i}", "stars": i} for i in range(10)] + [{"id": "bad", "prompt": 7}])
    there.run()
    plain = there.results()
    target = there.folder / "results.parquet"
    there.run(there.job(output={"path": str(target), "format": "parquet"}))
    table = pq.read_table(target)
    rows = table.to_pylist()
    for field in ("id", "row", "status", "model", "score", "content", "prompt_tokens", "attempts", "cost_usd"):
        expected = [row[field] if field != "score" or row[field] is None else float(row[field]) for row in plain]
        assert [row[field] for row in rows] == (pytest.approx(expected) if field == "score" else expected), field
    assert [row["stars"] for row in rows] == [*range(10), None]


def test_openai_batch_output_has_its_failures_beside_it(there: JobFolder) -> None:
    """Answers are in the file in OpenAI's shape, failures in `.errors.jsonl`; together they have every row once."""
    there.write(
        {
            "custom_id": f"c{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"messages": [{"role": "user", "content": f"p{i}"}] if i != 2 else "not messages"},
        }
        for i in range(5)
    )
    there.run(there.job(output={"path": str(there.results_path), "format": "openai_batch"}))
    good = there.results()
    bad = [json.loads(line) for line in (there.folder / "results.errors.jsonl").read_text().splitlines()]
    assert [line["custom_id"] for line in good] == ["c0", "c1", "c3", "c4"]
    assert [line["response"]["body"]["choices"][0]["message"]["content"] for line in good] == ["p0", "p1", "p3", "p4"]
    assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in bad] == [
        ("c2", None, "wrong_type")
    ]


def test_a_folder_gets_a_part_for_each_shard(there: JobFolder) -> None:
    """The parts, in the order of their names, have the rows in input order."""
    names = ["a.jsonl", "b.jsonl", "c.jsonl"]
    for name in names:
        there.write([{"prompt": f"{name} {i}"} for i in range(4)], name)
    there.run(
        there.job(
            input={"path": [str(there.folder / name) for name in names]}, output={"path": f"{there.folder / 'parts'}/"}
        )
    )
    parts = sorted((there.folder / "parts").iterdir())
    assert [part.name for part in parts] == ["part-00000.jsonl", "part-00001.jsonl", "part-00002.jsonl"]
    rows = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(12))
    assert [row["id"] for row in rows] == [f"{name}:{i}" for name in names for i in range(1, 5)]


def test_a_finished_job_sends_nothing_again(there: JobFolder) -> None:
    """The second run sends nothing, ends with the same report and results, and adds its time to the report."""
    there.write_prompts(20)
    first = there.run()
    bytes_before = there.results_path.read_bytes()
    there.served.forget()
    second = there.run()
    assert there.served.posts == []
    assert there.results_path.read_bytes() == bytes_before
    assert (second.rows, second.models, second.cost_usd) == (first.rows, first.models, first.cost_usd)
    assert second.timing.wall_seconds > first.timing.wall_seconds


def test_lost_results_are_written_again(there: JobFolder) -> None:
    """Results that were deleted come back from the run directory, without a request."""
    there.write_prompts(20)
    there.run()
    before = there.results_path.read_bytes()
    there.results_path.unlink()
    there.served.forget()
    there.run()
    assert (there.results_path.read_bytes(), there.served.posts) == (before, [])


def test_a_changed_plan_sends_only_rows_whose_model_changed(there: JobFolder) -> None:
    """If the share rises from 0.3 to 0.6, the rows in between are sent to the strongest model, and no others."""
    there.write_prompts(50)
    there.run(there.job(plan={"strategy": "share", "strong": 0.3}))
    first = there.results()
    before = {row["id"]: row["model"] for row in first}
    there.served.forget()
    report = there.run(there.job(plan={"strategy": "share", "strong": 0.6}))
    rows = there.results()
    moved = {row["id"] for row in rows if row["model"] != before[row["id"]]}
    assert len(moved) == 15
    assert {model for model, _ in there.served.sent()} == {"large"}
    assert sum(there.served.sent().values()) == 15
    assert {prompt.split()[0] for prompt in there.served.prompts()} == {f"p{name[1:]}" for name in moved}
    assert Counter(row["model"] for row in rows) == {"small": 20, "large": 30}
    assert report.models["large"].rows == 30
    # No row has the cost of the answers that the small model gave to these rows; a note states it.
    bought = dollars(row for row in first if row["id"] in moved)
    note = f"15 answers of an earlier plan, paid for and not in the results, cost ${bought.normalize():f} more"
    assert report.notes == (note,)
    back = there.run(there.job(plan={"strategy": "share", "strong": 0.3}))
    assert [line.split(",")[0] for line in back.notes] == ["15 answers of an earlier plan"]
    assert there.results() == first


def test_a_changed_job_is_refused_and_fresh_keeps_the_old_run(there: JobFolder) -> None:
    """Another system message makes another run: the refusal names the key; `fresh` moves the old run aside."""
    there.write_prompts(4)
    there.run()
    there.served.forget()
    changed = there.job(input={"path": str(there.folder / "prompts.jsonl"), "system": "Be brief."})
    with pytest.raises(FingerprintError, match=r"differs in input\.system; --fresh"):
        there.run(changed)
    assert there.served.posts == []
    report = there.run(changed, fresh=True)
    assert (report.rows.ok, len(there.served.posts)) == (4, 4)
    assert (there.folder / "results.jsonl.run.1" / "report.json").exists()
