"""RunWork: the rows that earlier sittings have left for the dispatcher to send."""

from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from batch.dispatch.request import Request
from batch.outcomes import FailedAttempt
from batch.running.run_work import RunWork
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.layout import Layout
from batch.runs.parts import write_part
from batch.runs.routing_record import RoutingRecord, write_routing_record
from schemas.endpoints import EndpointSpec, ModelSpec
from tests.runs.journals import OpenJournal, answered, given_up

ROWS = 1200
MODEL = ModelSpec(name="small", endpoints=(EndpointSpec(url="http://a/v1", model="small"),))
OTHER = ModelSpec(name="large", endpoints=(EndpointSpec(url="http://b/v1", model="large"),))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A routed shard of 1200 rows for one model, which a reader gets in three batches."""
    layout = Layout(tmp_path)
    count = pa.array([1] * ROWS, pa.int32())
    columns = {"row": pa.array(range(ROWS), pa.int64()), "url": ["/v1/chat/completions"] * ROWS}
    columns |= {"body": pa.array([b"{}"] * ROWS, pa.binary()), "prompt_tokens": count, "max_tokens": count}
    write_part(layout.routed("small", 0), pa.table(columns))
    write_routing_record(layout, 0, RoutingRecord({"small": ROWS}))
    return layout


def work(layout: Layout, *, retry_failed: bool = False) -> RunWork:
    group = GroupSync(enabled=False)
    return RunWork(layout, (MODEL, OTHER), {"small": ["large"]}, group, retry_failed=retry_failed)


def rows(work: RunWork) -> list[int]:
    return [request.row for request in chain.from_iterable(work.routed(0, "small"))]


def test_only_rows_without_an_outcome_are_read(layout: Layout) -> None:
    """Rows left to send are counted and read in order, each once, wherever in the batches they are."""
    left = [5, 511, 512, 1199]
    with OpenJournal(layout.journal(0, "small")) as journal:
        for row in range(ROWS):
            if row not in left:
                journal.intent(row, 1, 0)
                answered(journal, row)
    resumed = work(layout)
    assert resumed.history(0).remaining == {"small": 4}
    assert rows(resumed) == left
    assert rows(resumed) == left, "asked again, it says the same"


def test_a_shard_without_journals_is_read_whole(layout: Layout) -> None:
    """Nothing of such a shard was sent yet."""
    fresh = work(layout)
    assert fresh.history(0).remaining == {"small": ROWS}
    assert rows(fresh) == list(range(ROWS))


def test_rows_end_by_a_fallbacks_answer_or_by_failing_unless_failures_are_retried(layout: Layout) -> None:
    """An answer under any model of the chain ends the row; `retry_failed` sends failed rows and no others."""
    with OpenJournal(layout.journal(0, "small")) as journal:
        for row in range(ROWS):
            given_up(journal, row)
    with OpenJournal(layout.journal(0, "large")) as journal:
        answered(journal, 7)
    assert work(layout).history(0).remaining == {"small": 0}
    again = work(layout, retry_failed=True)
    assert again.history(0).remaining == {"small": ROWS - 1}
    assert rows(again) == [row for row in range(ROWS) if row != 7]


def test_history_lists_only_rows_that_were_sent(layout: Layout) -> None:
    """A row's attempts are numbered over all models of its fallback chain; a row in flight at a kill is ambiguous."""
    with OpenJournal(layout.journal(0, "small")) as journal:
        journal.intent(3, 2, 0)
        journal.attempt(FailedAttempt(3, 2, 0, kind="timeout", status=None, latency=1.0))
        journal.intent(4, 1, 1)
    with OpenJournal(layout.journal(0, "large"), ("http://c/v1",)) as journal:
        journal.intent(3, 3, 0)
        journal.attempt(FailedAttempt(3, 3, 0, kind="timeout", status=None, latency=1.0))
    history = work(layout).history(0)
    assert history.remaining == {"small": ROWS}
    assert history.sent == {3: 3, 4: 1}
    assert history.ambiguous == {4: "http://b/v1"}


def test_requests_of_a_resumed_shard_are_whole(layout: Layout) -> None:
    """Skipping the finished rows mixes nothing up: each request has its own row's values."""
    with OpenJournal(layout.journal(0, "small")) as journal:
        answered(journal, 0)
    resumed = work(layout)
    resumed.history(0)
    first: Request = next(iter(resumed.routed(0, "small")))[0]
    assert (first.row, first.shard, first.url, first.body, first.prompt_tokens, first.max_tokens, first.model) == (
        1,
        0,
        "/v1/chat/completions",
        b"{}",
        1,
        1,
        "small",
    )
