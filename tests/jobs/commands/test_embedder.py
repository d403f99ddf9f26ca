"""Jobs whose scores come from an embedding endpoint, and jobs whose rows are embedded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from batch.errors import SpecError
from batch.routers.embedders.vector_cache import FILE
from jobs.commands.check import check_job
from jobs.commands.estimate import estimate_job
from jobs.rehearsal.answers import embed
from jobs.rehearsal.stand_ins import rehearsed
from tests.job_folder import ENDPOINTS, JobFolder
from tests.rehearsed import Served, serve
from tests.routers.embedders.endpoint_checkpoint import DIMENSION, MODEL, write_checkpoint

KEY = "sk-0123456789-never-to-be-seen"
SURROUNDINGS = ("EMBEDDING_BASE_URL", "EMBEDDING_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY")


@pytest.fixture(scope="module")
def vectors() -> Iterator[Served]:
    """An embedding endpoint that requires a key."""
    with serve({"model": MODEL, "api_key_env": "KEY"}, environ={"KEY": KEY}) as served:
        yield served


@pytest.fixture(scope="module")
def answers() -> Iterator[Served]:
    with serve(*ENDPOINTS) as served:
        yield served


@pytest.fixture
def there(answers: Served, vectors: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JobFolder:
    answers.forget()
    vectors.forget()
    for name in SURROUNDINGS:
        monkeypatch.delenv(name, raising=False)
    folder = JobFolder(tmp_path, answers)
    folder.write_prompts(40)
    return folder


def router(there: JobFolder, **embedder: Any) -> dict[str, Any]:
    checkpoint = write_checkpoint(there.folder / "checkpoint")
    spec = {"kind": "endpoint", "model": MODEL, "dimensions": DIMENSION} | embedder
    return {"kind": "correctness", "checkpoint": checkpoint, "embedder": spec}


@pytest.mark.parametrize("prefix", ["EMBEDDING", "OPENAI"])
def test_scores_come_from_the_embedding_endpoint(
    prefix: str, there: JobFolder, vectors: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URL and key come from the environment; prompts are embedded once, in packs; no file has the key."""
    monkeypatch.setenv(f"{prefix}_BASE_URL", vectors.urls[0] + "/")
    monkeypatch.setenv(f"{prefix}_API_KEY", KEY)
    if prefix == "EMBEDDING":
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    report = there.run(there.job(router=router(there)))
    assert report.rows.ok == 40
    assert sorted(len(post["input"]) for post in vectors.posts) == [8, 32]
    scored = pq.read_table(there.run_dir / "scored" / "00000.parquet")
    # The checkpoint reads 50 tokens.
    expected = np.array([embed(text[:100], DIMENSION)[:2] for text in scored["text"].to_pylist()])
    chances = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(scored["score"].to_numpy(), chances[:, 1] - chances[:, 0], atol=1e-6)
    written = [file for file in there.folder.rglob("*") if file.is_file()]
    assert there.run_dir / "cache" / FILE in written
    assert not [file for file in written if KEY.encode() in file.read_bytes()]


def test_a_cache_serves_estimates_and_later_runs(
    there: JobFolder, vectors: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings that an estimate has paid for are not paid for again by a run, not even by a fresh one."""
    monkeypatch.setenv("KEY", KEY)
    shared = router(there, url=vectors.urls[0], api_key_env="KEY", cache=str(there.folder / "cache"))
    estimate_job(there.job(router=shared))
    assert sum(len(post["input"]) for post in vectors.posts) == 40
    assert not there.run_dir.exists()
    vectors.forget()
    there.run(there.job(router=shared))
    there.run(there.job(router=shared), fresh=True)
    assert vectors.posts == []


def test_another_way_to_the_same_vectors_is_the_same_run(
    there: JobFolder, vectors: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """URLs, keys and limits of an embedder may change between sittings; its model and dimensions may not."""
    monkeypatch.setenv("KEY", KEY)
    monkeypatch.setenv("OTHER", KEY)
    there.run(there.job(router=router(there, url=vectors.urls[0], api_key_env="KEY")))
    vectors.forget()
    pool = {"endpoints": [{"url": vectors.urls[0], "api_key_env": "OTHER", "limits": {"rpm": 1000}}]}
    assert there.run(there.job(router=router(there, **pool))).rows.ok == 40
    assert vectors.posts == []
    with pytest.raises(SpecError, match=r"differs in router\.embedder\.dimensions"):
        there.run(there.job(router=router(there, **pool, dimensions=4)))


def test_a_missing_url_key_or_server_is_reported_before_anything_is_sent(there: JobFolder, vectors: Served) -> None:
    """Each of these faults is one line, in `run` and in `check`."""
    for embedder, said in (
        ({}, r"^router\.embedder\.endpoints\.0 has no url: give one, or set EMBEDDING_BASE_URL or OPENAI_BASE_URL$"),
        (
            {"url": vectors.urls[0], "api_key_env": "ABSENT"},
            r"^router\.embedder\.endpoints\.0: the environment variable ABSENT is not set$",
        ),
        ({"url": "http://127.0.0.1:9/v1"}, r"^model vec: no connection to http://127\.0\.0\.1:9/v1: "),
    ):
        with pytest.raises(SpecError, match=said):
            there.run(there.job(router=router(there, **embedder)))
        assert any(
            problem.startswith(("router.embedder", "model vec"))
            for problem in check_job(there.job(router=router(there, **embedder))).problems
        )
    assert (vectors.posts, there.served.posts) == ([], [])
    assert not there.run_dir.exists()


def test_an_embedder_that_is_not_used_needs_no_url_or_key(there: JobFolder) -> None:
    """If the plan pins every row, the job runs although its embedder has neither URL nor key."""
    job = there.job(router=router(there), plan={"strategy": "pin", "model": "small"})
    assert there.run(job).rows.ok == 40
    assert check_job(job).problems == ()


def test_check_asks_the_embedding_endpoint_for_its_models(
    there: JobFolder, vectors: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`check` asks it for its list of models, like other endpoints, and has nothing embedded."""
    monkeypatch.setenv("KEY", KEY)
    found = check_job(there.job(router=router(there, url=vectors.urls[0], api_key_env="KEY")))
    assert found.problems == ()
    assert (found.endpoints[-1].model, found.endpoints[-1].said) == (MODEL, f"serves {MODEL}")
    assert vectors.posts == []


def test_a_dress_rehearsal_embeds_at_stand_ins(there: JobFolder, vectors: Served) -> None:
    """The real endpoint gets no request, its key is not needed, and its cache gets no made-up vector."""
    cache = there.folder / "cache"
    asked = router(there, url=vectors.urls[0], api_key_env="ABSENT", cache=str(cache), dimensions=None)
    with rehearsed(there.job(router=asked)) as job:
        assert there.run(job).rows.ok == 40
    assert vectors.posts == []
    assert not cache.exists()


def test_packed_rows_have_the_results_of_unpacked_ones(there: JobFolder) -> None:
    """All results are equal except for latencies, and in input order, also with base64 rows and a bad row."""
    rows: list[dict[str, Any]] = [{"id": f"r{i}", "input": f"text {i}"} for i in range(50)]
    rows[10] |= {"params": {"dimensions": 3, "encoding_format": "base64"}}
    rows[20] |= {"params": {"dimensions": 0}}
    rows[30] |= {"input": "text 31"}
    there.write(rows)
    results = []
    for most in (1, 32):
        models = there.job().models[:1]
        limits = {"limits": {"max_inputs": most}}
        endpoint = models[0].endpoints[0].model_dump(exclude={"limits"}) | limits
        there.served.forget()
        there.run(
            there.job(
                models=[models[0].model_dump() | {"endpoints": [endpoint]}],
                plan={"strategy": "pin", "model": "small"},
                dispatch={"dedup": "on"},
            ),
            fresh=True,
        )
        results.append([{k: v for k, v in row.items() if k != "latency_seconds"} for row in there.results()])
        assert sum(len(p["input"]) if isinstance(p["input"], list) else 1 for p in there.served.posts) == 49
        assert (len(there.served.posts) == 49) is (most == 1)
    assert results[0] == results[1]
    assert [row["id"] for row in results[0]] == [f"r{i}" for i in range(50)]
    assert [row["id"] for row in results[0] if row["status"] != "ok"] == ["r20"]


def test_a_budget_bounds_embeddings_by_their_bytes(there: JobFolder) -> None:
    """Embeddings need no `max_tokens`: rows that fit are sent, and the cost never exceeds the budget."""
    there.write({"input": f"text {i:03}"} for i in range(200))
    report = there.run(there.job(plan={"strategy": "pin", "model": "small"}, dispatch={"budget_usd": "0.00001"}))
    assert report.rows.ok > 0
    assert report.rows.unsent > 0
    assert report.rows.ok + report.rows.unsent == 200
    assert report.cost_usd is not None
    assert report.cost_usd <= 0.00001
