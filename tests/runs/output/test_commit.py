"""Committing a shard: from journals to results."""

from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch.costs.ledger import Ledger
from batch.errors import StorageError
from batch.outcomes import FailedAttempt, RowOutcome
from batch.runs.committed import read_commit
from batch.runs.journal.outcome_reader import JournaledOutcome
from batch.runs.journal.outcomes import ModelOutcome, ShardOutcomes
from batch.runs.layout import Layout
from schemas.job import OutputSpec
from schemas.reports import RowCounts
from schemas.results import ErrorInfo, ResultRow
from tests.runs.journals import ANSWER, FAILURE, URLS, OpenJournal, answered, given_up
from tests.runs.shards import MODELS, PRICES, bad, commit, results, row, write_shard

OUTPUT = OutputSpec(path="results.jsonl")
FIELDS = list(ResultRow.model_fields)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "run")


def test_every_row_comes_out_once_in_order_with_its_reason(layout: Layout) -> None:
    """Rows that were answered, given up, invalid, duplicate or never sent are all in the results, in input order."""
    rows = [row(0), bad(1), row(2), row(3), row(4), row(5)]
    write_shard(
        layout, rows, {"weak": [0, 4], "strong": [2, 3]}, duplicate_ids={5: "a.jsonl:6: id 'x' was used in line 1"}
    )
    with OpenJournal(layout.journal(0, "strong")) as journal:
        journal.intent(3, 1, 1)
        journal.attempt(FailedAttempt(3, 1, 1, kind="bad_request", status=400, latency=0.5))
        given_up(journal, 3)
        journal.intent(2, 1, 0)
        answered(journal, 2)
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(0, 1, 0)
        answered(journal, 0)
        journal.intent(4, 1, 0)
        journal.attempt(FailedAttempt(4, 1, 0, kind="rate_limited", status=429, latency=0.5))
    committed = commit(layout, OUTPUT)
    found = results(layout)
    assert [list(r) for r in found] == [FIELDS] * 6
    assert [(r["row"], r["status"], r["model"]) for r in found] == [
        (0, "ok", "weak"),
        (1, "invalid", None),
        (2, "ok", "strong"),
        (3, "failed", "strong"),
        (4, "unsent", "weak"),
        (5, "invalid", None),
    ]
    kinds = [r["error"] and r["error"]["kind"] for r in found]
    assert kinds == [None, "invalid_json", None, "bad_request", "unsent", "duplicate_id"]
    assert [r["attempts"] for r in found] == [1, 0, 1, 1, 1, 0]
    assert found[3]["error"] == FAILURE.model_dump()
    assert committed.rows == 6
    report_rows(committed.ledger, total=6, ok=2, failed=1, invalid=2, unsent=1)
    example = Ledger.from_json(committed.ledger, PRICES).examples["bad_request"]
    assert (example.id, example.row, example.message) == ("id-3", 3, FAILURE.message)
    for line in found:
        ResultRow.model_validate(line)


def test_a_row_shows_the_whole_answer_and_its_exact_cost(layout: Layout) -> None:
    """A result has the content, the provider's JSON byte for byte, tokens, exact dollars and a short score."""
    write_shard(layout, [row(0)], {"strong": [0]})
    raw = b'{"choices":[{"message":{"content":"\\u00e9 1.10"}}],"big":12345678901234567890123, "f":1.10}'
    with OpenJournal(layout.journal(0, "strong")) as journal:
        answered(journal, 0, response=raw)
    commit(layout, OUTPUT)
    line = layout.part(0, "jsonl").read_bytes()
    assert b'"response":' + raw + b"," in line
    assert b'"cost_usd":0.0006,' in line
    assert b'"score":0.116,' in line
    assert results(layout)[0]["content"] == "é 1.10"


@pytest.mark.parametrize(
    ("response", "content"),
    [
        (b'{"choices":[{"text":"plain"}]}', "plain"),
        (b'{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}', "a"),
        (b'{"choices":[{"message":{"content":null,"tool_calls":[]}}]}', None),
        (b'{"data":[{"embedding":[0.1]}]}', None),
        (b'{"choices":[]}', None),
        (b'{"choices":{"0":1}}', None),
    ],
)
def test_content_is_the_text_of_the_first_choice(layout: Layout, response: bytes, content: str | None) -> None:
    """Chat and plain completions have a text; embeddings, tool calls and odd shapes have none."""
    write_shard(layout, [row(0)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0, response=response)
    commit(layout, OUTPUT)
    assert [(r["status"], r["content"]) for r in results(layout)] == [("ok", content)]


@pytest.mark.parametrize("response", [b'{"a":"\\ud800"}', b"<html>", b"[]", b'{"a":' * 3000 + b"1" + b"}" * 3000])
def test_an_answer_that_is_no_json_object_fails_its_row_only(layout: Layout, response: bytes) -> None:
    """An answer that is no JSON object fails its own row only: the part can be read."""
    write_shard(layout, [row(0), row(1)], {"weak": [0, 1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0, response=response)
        answered(journal, 1)
    commit(layout, OUTPUT)
    found = results(layout)
    assert [r["status"] for r in found] == ["failed", "ok"]
    assert found[0]["error"]["kind"] == "bad_answer"
    assert found[0]["response"] is None


def test_an_unknown_price_or_usage_is_null(layout: Layout) -> None:
    """A row whose price or usage is unknown has no cost, rather than a cost of zero."""
    write_shard(layout, [row(0), row(1)], {"weak": [0], "strong": [1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0)
    with OpenJournal(layout.journal(0, "strong")) as journal:
        journal.outcome(RowOutcome(1, status="ok", endpoint=0, attempts=1, latency=1.0, response=ANSWER))
    commit(layout, OUTPUT, prices={**PRICES, "weak": None})
    assert [r["cost_usd"] for r in results(layout)] == [None, None]
    assert [r["prompt_tokens"] for r in results(layout)] == [10, None]


def test_a_row_that_fell_back_is_the_fallbacks(layout: Layout) -> None:
    """A row's model is the one that answered, or the last that failed; a model that is no fallback does not count."""
    write_shard(layout, [row(n) for n in range(4)], {"strong": [0, 1, 2], "weak": [3]})
    with OpenJournal(layout.journal(0, "strong")) as journal:
        for number in range(3):
            journal.intent(number, 1, 0)
            journal.attempt(FailedAttempt(number, 1, 0, kind="refused", status=403, latency=0.1))
        answered(journal, 2, attempts=2)
        answered(journal, 3)
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0, attempts=2)
        given_up(journal, 1, attempts=2)
        given_up(journal, 2, attempts=2)
    commit(layout, OUTPUT, fallbacks={"strong": ["weak"]})
    assert [(r["status"], r["model"], r["attempts"]) for r in results(layout)] == [
        ("ok", "weak", 2),
        ("failed", "weak", 2),
        ("ok", "strong", 2),
        ("unsent", "weak", 0),
    ]


def test_a_shared_answer_costs_nothing(layout: Layout) -> None:
    """A duplicate row has the answer of the row that it repeats, in any shard, and counts as deduplicated."""
    write_shard(layout, [row(n) for n in range(5, 10)], {"weak": [5, 6]}, shares_answer_of={7: 5, 8: 1, 9: 2}, shard=1)
    with OpenJournal(layout.journal(1, "weak")) as journal:
        answered(journal, 5)
        given_up(journal, 6)
    outcome = JournaledOutcome(1, "ok", URLS[1], 1, 0.5, 10, 5, None, ANSWER)
    others = {1: ModelOutcome("strong", outcome)}
    committed = commit(layout, OUTPUT, shard=1, find_in_other_shards=others.get)
    found = results(layout, 1)
    assert [(r["status"], r["model"], r["content"], r["attempts"], r["cost_usd"]) for r in found] == [
        ("ok", "weak", "yes", 1, 0.000009),
        ("failed", "weak", None, 1, None),
        ("ok", "weak", "yes", 0, 0),
        ("ok", "strong", "yes", 0, 0),
        ("unsent", None, None, 0, None),
    ]
    report_rows(committed.ledger, total=5, ok=3, failed=1, invalid=0, unsent=1, deduplicated=2)


def test_the_reason_of_an_unsent_row_is_the_journals_if_it_gives_one(layout: Layout) -> None:
    """A row that the budget stopped has the error kind `budget`; a row that no journal names has `unsent`."""
    write_shard(layout, [row(0), row(1)], {"weak": [0, 1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        error = ErrorInfo(kind="budget", message="spent")
        journal.outcome(RowOutcome(0, status="unsent", endpoint=None, attempts=0, latency=None, error=error))
    commit(layout, OUTPUT)
    assert [(r["status"], r["error"]["kind"]) for r in results(layout)] == [("unsent", "budget"), ("unsent", "unsent")]


def test_the_ledger_takes_every_attempt(layout: Layout) -> None:
    """Each request is counted at its endpoint, however it ended; an attempt that never connected is not counted."""
    write_shard(layout, [row(0), row(1, pinned="weak")], {"weak": [0, 1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        for attempt, kind in enumerate(["rate_limited", "rate_limited", "server_error", "not_connected"], 1):
            journal.intent(0, attempt, 0)
            journal.attempt(FailedAttempt(0, attempt, 0, kind=kind, status=None, latency=0.1))
        journal.intent(0, 4, 1)
        answered(journal, 0, attempts=4, endpoint=1)
        journal.intent(1, 1, 1)
    with OpenJournal(layout.journal(0, "weak")) as journal:
        journal.intent(1, 2, 0)
        answered(journal, 1, attempts=2)
    committed = commit(layout, OUTPUT)
    state = orjson.loads(committed.ledger)
    endpoints = state["models"]["weak"]["endpoints"]
    counts = {url: (e["rows"], e["attempts"], e["throttled"], e["errors"]) for url, e in endpoints.items()}
    assert counts == {URLS[0]: (1, 4, 2, 1), URLS[1]: (1, 2, 0, 1)}
    assert sum(e["attempts"] for e in endpoints.values()) == sum(r["attempts"] for r in results(layout))
    assert state["pinned"] == 1


def test_lost_requests_are_listed_with_what_they_cost_at_most(layout: Layout) -> None:
    """Every request without an end is in the commit record with its row's id, even if the row was answered later."""
    write_shard(layout, [row(0), row(1, max_tokens=None)], {"strong": [0, 1]})
    with OpenJournal(layout.journal(0, "strong")) as journal:
        journal.intent(0, 1, 0)
        journal.intent(1, 1, 1)
    with OpenJournal(layout.journal(0, "strong")) as journal:
        journal.intent(0, 2, 0)
        answered(journal, 0, attempts=2)
        given_up(journal, 1)
    committed = commit(layout, OUTPUT)
    assert [(a.id, a.row, a.model, a.endpoint, a.cost_usd) for a in committed.ambiguous] == [
        ("id-0", 0, "strong", URLS[0], Decimal("0.0063")),
        ("id-1", 1, "strong", URLS[1], None),
    ]
    assert [r["status"] for r in results(layout)] == ["ok", "failed"]


def test_a_commit_done_again_writes_the_same(layout: Layout) -> None:
    """After a kill between part and record the shard is committed again, byte for byte the same."""
    write_shard(layout, [row(0), row(1)], {"weak": [0, 1]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 1)
        answered(journal, 0)
    assert read_commit(layout, 0) is None
    first = commit(layout, OUTPUT)
    part, record = layout.part(0, "jsonl").read_bytes(), layout.commit(0).read_bytes()
    assert read_commit(layout, 0) == first
    layout.commit(0).unlink()
    commit(layout, OUTPUT)
    assert (layout.part(0, "jsonl").read_bytes(), layout.commit(0).read_bytes()) == (part, record)


def test_a_commit_that_fails_leaves_neither_part_nor_record(layout: Layout) -> None:
    """A scored part that cannot be read stops the commit before anything appears."""
    with pytest.raises(StorageError, match="was not routed"):
        commit(layout, OUTPUT)
    write_shard(layout, [row(0)], {"weak": [0]})
    data = layout.scored(0).read_bytes()
    layout.scored(0).write_bytes(data[: len(data) // 2])
    with pytest.raises(StorageError, match=r"cannot read .*00000.parquet"):
        commit(layout, OUTPUT)
    assert not layout.commit(0).exists()
    assert not list(layout.part(0, "jsonl").parent.iterdir())


def test_damage_is_noted_in_the_record(layout: Layout) -> None:
    """The commit record has the note on a torn journal."""
    write_shard(layout, [row(0)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0)
    path = layout.journal(0, "weak")
    path.write_bytes(path.read_bytes() + b'{"crc":"0')
    assert commit(layout, OUTPUT).notes == (f"{path}:3: the last line was not written whole and is ignored",)


def test_carried_columns_follow_the_fields(layout: Layout) -> None:
    """Input columns come after the fields, verbatim; one with the name of a field gets `input_` in front."""
    rows = [
        row(0, carry=b'{"topic":"x","level":1.10}'),
        row(1, carry=b'{"model":"theirs","input_model":2,"input_input_model":3}'),
        row(2, carry=b"{}"),
    ]
    write_shard(layout, rows, {})
    commit(layout, OUTPUT)
    lines = layout.part(0, "jsonl").read_bytes().splitlines()
    assert lines[0].endswith(b',"topic":"x","level":1.10}')
    found = results(layout)
    assert [list(r)[len(FIELDS) :] for r in found] == [
        ["topic", "level"],
        ["input_input_input_model", "input_model", "input_input_model"],
        [],
    ]
    assert found[1]["input_input_input_model"] == "theirs"
    commit(layout, OutputSpec(path="x", carry=False))
    assert [list(r) for r in results(layout)] == [FIELDS] * 3


# Each example waits for the disk a dozen times.
@settings(max_examples=20)
@given(st.permutations(range(12)), st.lists(st.sampled_from(["ok", "failed", "none"]), min_size=12, max_size=12))
def test_results_do_not_depend_on_the_order_of_answers(order: list[int], ends: list[str]) -> None:
    """In whatever order rows end, the part has them in input order, each with its own end."""
    with TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        write_shard(
            layout, [row(n) for n in range(12)], {m: [n for n in range(12) if n % 2 == i] for i, m in enumerate(MODELS)}
        )
        with OpenJournal(layout.journal(0, MODELS[0])) as even, OpenJournal(layout.journal(0, MODELS[1])) as odd:
            for number in order:
                journal = (even, odd)[number % 2]
                if ends[number] == "ok":
                    answered(journal, number, response=b'{"choices":[{"text":"%d"}]}' % number)
                elif ends[number] == "failed":
                    given_up(journal, number)
        commit(layout, OUTPUT)
        found = results(layout)
    names = {"ok": "ok", "failed": "failed", "none": "unsent"}
    assert [(r["row"], r["status"]) for r in found] == [(n, names[end]) for n, end in enumerate(ends)]
    assert all(r["content"] == str(r["row"]) for r in found if r["status"] == "ok")


def test_answers_are_found_without_a_commit(layout: Layout) -> None:
    """The outcome of one row can be read without committing its shard; rows that were never routed have none."""
    write_shard(layout, [row(0), row(1)], {"weak": [0]})
    with OpenJournal(layout.journal(0, "weak")) as journal:
        answered(journal, 0)
    with ShardOutcomes(layout, 0, MODELS, {}) as answers:
        found = answers.find(0)
        assert found is not None
        assert (found.model, found.outcome.response) == ("weak", ANSWER)
        assert answers.find(1) is None
        assert answers.sent(1) == 0


def report_rows(ledger: bytes, **counts: int) -> None:
    """Check the stored counts."""
    state = orjson.loads(ledger)
    found = {status: state["statuses"].get(status, 0) for status in ("ok", "failed", "invalid", "unsent")}
    assert RowCounts(total=sum(found.values()), deduplicated=state["deduplicated"], **found) == RowCounts(**counts)
