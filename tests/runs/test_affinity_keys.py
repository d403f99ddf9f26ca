"""Affinity keys for `consistent_hash`, from the job file to the requests of the dispatcher."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import orjson
import pyarrow as pa
import pytest

from batch.dispatch.request import Request
from batch.errors import InputError
from batch.running.run_work import RunWork
from batch.runs.affinity_keys import PREFIX_BYTES, affinity_keys
from batch.runs.journal.group_fsync import GroupSync
from batch.runs.layout import Layout
from batch.runs.parts import read_part
from jobs.commands.check import check_job
from tests.job_folder import ENDPOINTS, JobFolder
from tests.rehearsed import Served, serve


def prefix_keys(*bodies: object) -> list[int]:
    encoded = [orjson.dumps(body) for body in bodies]
    return affinity_keys(pa.record_batch({"body": encoded}), encoded, "prefix")


def chat(*said: str, **more: object) -> dict[str, object]:
    return {**more, "messages": [{"role": "user", "content": text} for text in said]}


def test_rows_that_begin_alike_share_a_key() -> None:
    """Rows whose long prompts begin alike share a key; the prompts' ends and the parameters do not matter."""
    document = "word " * PREFIX_BYTES
    one, other, cold, changed = prefix_keys(
        chat(f"{document} What?"),
        chat(document, "Why?"),
        chat(f"{document} What?", temperature=0, max_tokens=5),
        chat(f"Another {document} What?"),
    )
    assert one == other == cold
    assert changed != one


def test_short_prompts_have_keys_of_their_own() -> None:
    """A request that is shorter than the prefix is hashed as a whole, for chats and for texts to embed."""
    bodies = [chat(f"q{i}") for i in range(100)] + [{"input": f"q{i}"} for i in range(100)]
    assert len(set(prefix_keys(*bodies))) == 200


def test_keys_are_the_same_in_every_process() -> None:
    """Keys are the same in every process and release, because a server's cache outlives a run."""
    assert prefix_keys(chat("hi")) == [8859296374531818364]


@pytest.fixture(scope="module")
def endpoints() -> Iterator[Served]:
    """Endpoints that answer with the prompt."""
    with serve(*ENDPOINTS) as served:
        yield served


@pytest.fixture
def there(endpoints: Served, tmp_path: Path) -> JobFolder:
    endpoints.forget()
    there = JobFolder(tmp_path, endpoints)
    there.write({"id": f"r{i}", "prompt": f"p{i}", **({"topic": i % 3} if i < 30 else {})} for i in range(40))
    return there


def sticking(there: JobFolder, hash_key: str) -> list[Request]:
    """The requests of a finished run by row, as its dispatcher reads them."""
    job = there.job(dispatch={"balancer": "consistent_hash", "hash_key": hash_key})
    assert there.run(job).rows.ok == 40
    with GroupSync(enabled=False) as group:
        work = RunWork(Layout(there.run_dir), job.models, {}, group, hash_key=hash_key)
        batches = chain.from_iterable(work.routed(0, model.name) for model in job.models)
        return sorted(chain.from_iterable(batches), key=lambda row: row.row)


def test_a_column_makes_the_keys(there: JobFolder) -> None:
    """Rows with the same value share a key, whichever model they go to; a row without the column has its id's key."""
    rows = sticking(there, "topic")
    assert [row.row for row in rows] == list(range(40))
    assert len({row.key for row in rows[:30]}) == 3
    assert all(row.key == rows[row.row % 3].key for row in rows[:30])
    assert len({row.key for row in rows}) == 13
    assert 0 not in {row.key for row in rows}


def test_ids_make_the_keys(there: JobFolder) -> None:
    """Ids make the keys if `hash_key` is `id` or names the id column."""
    by_id = [row.key for row in sticking(there, "id")]
    assert len(set(by_id)) == 40
    there.write({"ticket": f"r{i}", "prompt": f"p{i}"} for i in range(40))
    job = there.job(
        input={"path": str(there.folder / "prompts.jsonl"), "id_column": "ticket"},
        dispatch={"balancer": "consistent_hash", "hash_key": "ticket"},
    )
    there.run(job, fresh=True)
    with GroupSync(enabled=False) as group:
        work = RunWork(Layout(there.run_dir), job.models, {}, group, hash_key="ticket")
        routed = chain.from_iterable(chain.from_iterable(work.routed(0, m.name) for m in job.models))
        assert sorted(row.key for row in routed) == sorted(by_id)


def test_parts_routed_without_keys_are_sent_too(there: JobFolder) -> None:
    """Parts that were routed by another version, or for another balancer, give requests without a key."""
    there.run()
    job = there.job()
    with GroupSync(enabled=False) as group:
        work = RunWork(Layout(there.run_dir), job.models, {}, group, hash_key="topic")
        rows = list(chain.from_iterable(work.routed(0, "small")))
    assert rows
    assert {row.key for row in rows} == {0}


def test_a_run_resumes_under_another_key(there: JobFolder) -> None:
    """A run resumes after its hash key has changed, and nothing is sent twice."""
    sticking(there, "topic")
    sent = len(there.served.posts)
    assert there.run(there.job(dispatch={"balancer": "consistent_hash", "hash_key": "id"})).rows.ok == 40
    assert len(there.served.posts) == sent


def test_routed_parts_hold_keys_only_where_a_balancer_uses_them(there: JobFolder) -> None:
    """Other balancers add no column of keys, nor does hashing by prefix, which is in the request anyway."""
    there.run(there.job(dispatch={"balancer": "consistent_hash"}))
    layout = Layout(there.run_dir)
    plain = ["row", "url", "body", "prompt_tokens", "max_tokens"]
    assert sorted(read_part(layout.routed("small", 0)).column_names) == sorted(plain)
    there.run(there.job(dispatch={"hash_key": "topic"}), fresh=True)
    assert sorted(read_part(layout.routed("small", 0)).column_names) == sorted(plain)


def test_a_column_that_no_row_has_is_refused_before_anything_is_sent(there: JobFolder) -> None:
    """The error is one line that names the key, the column and the input's columns; `check` reports the same line."""
    job = there.job(dispatch={"balancer": "consistent_hash", "hash_key": "tpoic"})
    line = "dispatch.hash_key: no row has the column 'tpoic'; the first row has: id, prompt, topic"
    with pytest.raises(InputError) as refused:
        there.run(job)
    assert str(refused.value) == line
    assert there.served.posts == []
    assert line in check_job(job).problems


def test_responses_go_by_their_instructions() -> None:
    """Requests of the Responses API share a key where instructions are the same, whatever parameters come first."""
    long = "x" * PREFIX_BYTES
    bodies = [
        {"temperature": 0, "instructions": long, "input": "a"},
        {"instructions": long, "input": "b"},
        {"instructions": "y" + long, "input": "a"},
    ]
    first, same, other = prefix_keys(*bodies)
    assert first == same
    assert first != other
