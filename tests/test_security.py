"""What a stranger may try by way of rows, ids, names, job files and servers, and what comes of it: nothing."""

import asyncio
import csv
import gzip
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from batch.costs.ledger import Ledger
from batch.costs.prices import Price
from batch.dispatch.transports.registry import build_transport
from batch.errors import Refused, SpecError
from jobs.files.yaml_specs import load_job
from jobs.terminal.html.report import render_html
from schemas.endpoints import EndpointSpec
from schemas.plans import Plan
from schemas.reports import Ambiguous, Report, Timing
from tests.dispatch.transports.raw_server import http, raw_server, says
from tests.fakes import request
from tests.job_folder import JobFolder
from tests.rehearsed import Served, serve

HOSTILE_IDS = (
    "../../../escaped",
    "/tmp/batchrouter-escaped",
    "a\0b",
    "i" * 300,
    "con",
    ".",
    "..",
    "~root",
    "$(touch escaped)",
    "line\nbreak",
)
HOSTILE_NAMES = ("../../escaped", "..")

# With LiteLLM's SDK of OpenAI's, with its own client, and with that in other hands.
REDIRECTED = (
    ("openai", "m"),
    ("litellm", "openai/m"),
    ("litellm", "anthropic/claude-3-haiku-20240307"),
    ("litellm", "openrouter/m"),
    ("litellm", "gemini/gemini-pro"),
    ("litellm", "ollama_chat/m"),
)


@dataclass
class Stranger:
    """A port that counts who comes."""

    url: str = ""
    visits: int = 0


@asynccontextmanager
async def stranger() -> AsyncIterator[Stranger]:
    met = Stranger()

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.visits += 1
        writer.write(http(200))
        writer.close()

    server = await asyncio.start_server(visited, "127.0.0.1", 0)
    met.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield met
    finally:
        server.close()


@pytest.mark.real
@pytest.mark.filterwarnings("default")  # LiteLLM's own models make pydantic warn
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(("transport", "model"), REDIRECTED)
def test_a_redirect_leads_nobody_away(transport: Any, model: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither prompt nor key reaches where a server points to, whichever client asked; the endpoint is refused."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")

    async def main() -> int:
        async with stranger() as elsewhere:
            away = says(http(status, b"", f"location: {elsewhere.url}/v1/chat/completions"))
            async with raw_server(away) as server:
                spec = EndpointSpec(url=server.url, model=model, transport=transport, api_key_env="K")
                sender = build_transport(spec, timeout_seconds=5, keys={"K": "sk-secret"}.get, wall=lambda: 0.0)
                try:
                    with pytest.raises(Refused, match="redirects are not followed"):
                        await sender.send(request())
                finally:
                    await sender.aclose()
                assert len(server.received) == 1
            return elsewhere.visits

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.mkdir [{target}]",
        "!!python/object/new:os.mkdir [{target}]",
        "!!python/name:os.mkdir",
        "!!python/module:os",
        "!custom {{a: 1}}",
    ],
)
def test_a_job_file_runs_no_code(tmp_path: Path, tag: str) -> None:
    """YAML's tags for Python's objects are refused, in the file and in a setting, and nothing of them is done."""
    target = tmp_path / "made"
    value = tag.format(target=target)
    (tmp_path / "job.yaml").write_text(f"name: {value}\n")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_job(tmp_path / "job.yaml")
    (tmp_path / "job.yaml").write_text("name: fine\n")
    with pytest.raises(SpecError, match="not valid YAML"):
        load_job(tmp_path / "job.yaml", [f"name={value}"])
    assert not target.exists()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serve(*({"model": name, "answers": "echo"} for name in HOSTILE_NAMES)) as endpoints:
        yield endpoints


@pytest.fixture
def hostile(served: Served, tmp_path: Path) -> JobFolder:
    """Rows whose ids, and models whose names, would lead out of any folder; in all formats that need a spool too."""
    folder = tmp_path / "deep" / "down" / "job"
    folder.mkdir(parents=True)
    job = JobFolder(folder, served)
    job.write({"id": row, "prompt": f"prompt of {len(row)}"} for row in HOSTILE_IDS)
    (folder / "more.jsonl.gz").write_bytes(gzip.compress(b'{"id":"packed","prompt":"p"}\n', mtime=0))
    with (folder / "more.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "prompt"), ("../../escaped.csv", "p")])
    return job


def run(job: JobFolder, **output: Any) -> None:
    """Run it to its end, in this process."""
    models = [
        {"name": name, "price": {"input": 1, "output": 1}, "endpoints": [{"url": url}]}
        for name, url in zip(HOSTILE_NAMES, job.served.urls, strict=True)
    ]
    inputs = [str(job.folder / name) for name in ("prompts.jsonl", "more.jsonl.gz", "more.csv")]
    spec = job.job(models=models, input={"path": inputs}, output={"path": str(job.results_path)} | output)
    assert job.run(spec).rows.ok == len(HOSTILE_IDS) + 2


def test_ids_and_names_build_no_path(hostile: JobFolder) -> None:
    """Whatever ids and models are called, files appear in the run directory and beside it, under names of our own."""
    top = hostile.folder.parents[2]
    before = set(top.rglob("*"))
    run(hostile)
    made = {path for path in top.rglob("*") if path not in before}
    assert {path for path in made if not path.is_relative_to(hostile.run_dir)} == {hostile.results_path}
    assert not Path("/tmp/batchrouter-escaped").exists()
    assert [row["id"] for row in hostile.results()[: len(HOSTILE_IDS)]] == list(HOSTILE_IDS)
    named = {path.relative_to(hostile.run_dir).parts[0] for path in made if "escaped" in path.name}
    assert named == {"routed", "journal"}, "models name files, quoted; ids name none"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize(
    "output",
    [{}, {"format": "parquet"}, {"format": "openai_batch"}, {"path": "parts/"}],
    ids=["jsonl", "parquet", "openai_batch", "parts"],
)
def test_files_are_their_owners_alone(hostile: JobFolder, umask: int, output: dict[str, str]) -> None:
    """Results, and all that a run keeps, may be read by their owner only, whatever the umask is."""
    before = set(hostile.folder.rglob("*"))
    if "path" in output:
        output = {"path": f"{hostile.folder}/{output['path']}"}
    old = os.umask(umask)
    try:
        run(hostile, **output)
    finally:
        os.umask(old)
    made = [path for path in hostile.folder.rglob("*") if path not in before]
    assert {path for path in made if path.is_file() and _mode(path) != 0o600} == set()
    kept = [path for path in made if path.is_dir() and ".run" in str(path.relative_to(hostile.folder))]
    assert len(kept) > 5
    assert {path for path in kept if _mode(path) != 0o700} == set()


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


MARKUP = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"><a href='javascript:alert(1)'>",
    "' onmouseover='alert(1)",
    "</title></style><!--",
    "${title} $body &lt;b&gt;",
)


def report(text: str) -> Report:
    """A report in which all that comes from rows, job files and servers is `text`, each a little different."""
    price = Price(Decimal("0.000001"), Decimal("0.000002"))
    models = (f"{text}1", f"{text}2")
    ledger = Ledger(dict.fromkeys(models, price))
    for model in models:
        ledger.add_attempts(model, f"{text}url", "ok")
        ledger.add_row("ok", model, f"{text}url", 10, 10, 1.0, None, False)
        ledger.add_row("failed", model, f"{text}url", None, None, None, f"{text}kind", False)
        ledger.add_example(f"{text}kind", 1, f"{text}id", 400, f"{text}message")
    return ledger.report(
        name=f"{text}name",
        plan=Plan(strategy="share", weakest=models[0], strongest=models[1], cutoff=0.5),
        timing=Timing(
            wall_seconds=1.0,
            rows_per_second=1.0,
            scoring=1.0,
            dispatch=1.0,
            finished_at=datetime(2026, 1, 2, tzinfo=UTC),
        ),
        versions={f"{text}version": f"{text}number"},
        fingerprint=f"{text}fingerprint",
        output=f"{text}output",
        ambiguous=[Ambiguous(id=f"{text}id", row=1, model=models[0], endpoint=f"{text}endpoint", cost_usd=Decimal(1))],
        notes=(f"{text}note",),
    )


class Outline(HTMLParser):
    """All of a page but its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.tags.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", ((data, None),)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("markup", MARKUP)
def test_markup_in_a_report_is_text(markup: str) -> None:
    """Whatever names, ids, urls, kinds and notes hold, the page has the same tags and attributes, and shows it."""
    plain, page = Outline(render_html(report("plain"))), Outline(render_html(report(markup)))
    assert page.tags == plain.tags
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(markup) == plain.text.count("plain") >= 12
