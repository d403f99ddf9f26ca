"""Servers that are not ours: each starts and answers, and the command on Ray sends real questions to two of them."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Command
from tests.e2e.conftest import REPLY
from tests.e2e.servers import (
    BIN,
    LITELLM_MASTER_KEY,
    Server,
    ServerFailedError,
    ask,
    constant_nginx,
    nginx_path,
)

QUESTIONS = Path(__file__).parents[2] / "../shared/data/gsm8k.parquet"

pytestmark = pytest.mark.real

MAX_TOKENS = 16
# Dollars per million tokens.
PRICES = {
    "tiny-llama": {"input": Decimal("0.07"), "output": Decimal("0.28")},
    "mock-gpt": {"input": Decimal("2.5"), "output": Decimal(10)},
}
CHEAP, STRONG = PRICES


@pytest.fixture
def servers(llama: Server, proxy: Server) -> dict[str, Server]:
    return {CHEAP: llama, STRONG: proxy}


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return list(pq.read_table(QUESTIONS).to_pylist())


def test_transformers_serve_answers_with_the_tiny_llama(llama: Server) -> None:
    """A checkpoint built here loads, and generates the tokens asked for, the same twice."""
    first, second = (ask(llama, "Why is the sky blue?", max_tokens=16) for _ in range(2))
    assert first["choices"] == second["choices"]
    assert first["usage"]["completion_tokens"] == 16


def test_litellm_proxy_answers_with_its_mock(proxy: Server) -> None:
    """The proxy gives its mock response for the model it was told to serve."""
    answer = ask(proxy, "Why is the sky blue?")
    assert answer["choices"][0]["message"]["content"] == REPLY


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_nginx_answers_with_its_constant(tmp_path: Path) -> None:
    """Whatever is asked, the constant comes back."""
    with constant_nginx("m", "yes", tmp_path, tmp_path / "nginx.log") as server:
        answer = ask(server, "Is it?")
    assert answer["choices"][0]["message"]["content"] == "yes"


@pytest.mark.skipif(nginx_path() is None, reason="nginx is not installed")
def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The error carries the server's own words."""
    with (
        pytest.raises(ServerFailedError, match="invalid variable name"),
        constant_nginx("m", "$", tmp_path, tmp_path / "nginx.log"),
    ):
        pass


@pytest.mark.skipif(not QUESTIONS.exists(), reason="the GSM8K questions are not here")
@pytest.mark.skipif(
    not all((BIN / name).exists() for name in ("transformers", "litellm")), reason="the servers are not installed"
)
def test_half_of_gsm8k_goes_to_the_strongest(
    servers: dict[str, Server],
    questions: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every question comes out once and in order, half at the strongest, and the report is the sum of the results."""
    monkeypatch.setenv("MOCK_GPT_KEY", LITELLM_MASTER_KEY)
    command = Command(_job(servers, tmp_path), tmp_path / "run")
    try:
        assert command.wait() == 0, command.stderr
        assert command.leaves_nothing(), command.processes()
    finally:
        command.kill_all()
    results = tmp_path / "results.jsonl"
    rows = [json.loads(line, parse_float=Decimal) for line in results.read_text().splitlines()]
    report = json.loads(command.stdout, parse_float=Decimal)
    _tell_timings(servers, report)

    assert [row["row"] for row in rows] == list(range(len(questions)))
    assert [row["id"] for row in rows] == [question["id"] for question in questions]
    assert [row["reference_answer"] for row in rows] == [question["reference_answer"] for question in questions]
    assert {row["status"] for row in rows} == {"ok"}
    strongest = round(0.5 * len(questions))
    assert Counter(row["model"] for row in rows) == {STRONG: strongest, CHEAP: len(questions) - strongest}
    assert min(row["score"] for row in rows if row["model"] == STRONG) >= max(
        row["score"] for row in rows if row["model"] == CHEAP
    )
    assert {row["content"] for row in rows if row["model"] == STRONG} == {REPLY}
    assert all(0 < row["completion_tokens"] <= MAX_TOKENS for row in rows if row["model"] == CHEAP)

    _report_is_the_sum_of(rows, report, servers)
    run_directory = Path(f"{results}.run")
    stored = json.loads((run_directory / "report.json").read_text(), parse_float=Decimal)
    assert stored == report
    assert (run_directory / "report.html").read_text().startswith("<!doctype html>")
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and LITELLM_MASTER_KEY.encode() in path.read_bytes()
    ]


def _job(servers: dict[str, Server], folder: Path) -> Path:
    llama, proxy = servers[CHEAP], servers[STRONG]
    job = {
        "name": "gsm8k",
        "engine": "ray",
        "input": {"path": str(QUESTIONS.resolve()), "params": {"max_tokens": MAX_TOKENS, "temperature": 0}},
        "router": {"kind": "correctness"},
        "models": [
            {
                "name": CHEAP,
                "price": {kind: float(price) for kind, price in PRICES[CHEAP].items()},
                "endpoints": [{"url": llama.url, "model": llama.model, "limits": {"max_in_flight": 4}}],
            },
            {
                "name": STRONG,
                "price": {kind: float(price) for kind, price in PRICES[STRONG].items()},
                "endpoints": [
                    {
                        "url": proxy.url,
                        "model": proxy.model,
                        "api_key_env": "MOCK_GPT_KEY",
                        "limits": {"max_in_flight": 8},
                    }
                ],
            },
        ],
        "plan": {"strategy": "share", "strong": 0.5},
        "output": {"path": "results.jsonl"},
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path


def _report_is_the_sum_of(rows: list[dict[str, Any]], report: dict[str, Any], servers: dict[str, Server]) -> None:
    assert report["rows"] == {
        "total": len(rows),
        "ok": len(rows),
        "failed": 0,
        "invalid": 0,
        "unsent": 0,
        "deduplicated": 0,
    }
    assert list(report["models"]) == [CHEAP, STRONG]
    for name, told in report["models"].items():
        own = [row for row in rows if row["model"] == name]
        assert told["rows"] == len(own)
        for figure in ("prompt_tokens", "completion_tokens", "attempts", "cost_usd"):
            assert told[figure] == sum(row[figure] for row in own), f"{figure} of {name}"
        (endpoint,) = told["endpoints"].items()
        assert endpoint[0] == servers[name].url
        assert endpoint[1]["attempts"] == told["attempts"]
        assert endpoint[1]["throttled"] == endpoint[1]["errors"] == 0
        assert all(row["cost_usd"] == _cost(row, name) for row in own)
    assert report["cost_is_complete"] is True
    assert report["cost_usd"] == sum(row["cost_usd"] for row in rows)
    assert report["counterfactual"]["all_strongest_usd"] == sum(_cost(row, STRONG) for row in rows)
    assert report["counterfactual"]["all_cheapest_usd"] == sum(_cost(row, CHEAP) for row in rows)
    assert report["ambiguous"] == []
    assert report["errors"] == {}


def _cost(row: dict[str, Any], model: str) -> Decimal:
    prompt, completion = Decimal(row["prompt_tokens"]), Decimal(row["completion_tokens"])
    return (prompt * PRICES[model]["input"] + completion * PRICES[model]["output"]) / 1_000_000


def _tell_timings(servers: dict[str, Server], report: dict[str, Any]) -> None:
    starts = ", ".join(f"{name} {server.start_seconds:.1f} s" for name, server in servers.items())
    timing = {figure: f"{value:.2f}" for figure, value in report["timing"].items() if isinstance(value, Decimal)}
    print(f"\nservers started: {starts}\nrun: {timing}")
    for name, model in report["models"].items():
        print(f"{name}: {model['rows']} rows, p50 {model['p50_seconds']:.3f} s, p95 {model['p95_seconds']:.3f} s")
