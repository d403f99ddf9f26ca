"""If a server repeats the secrets it gets, in any spelling, none reaches a file or the terminal."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.jobs.console_script import Command, Job, written

KEY = "key/0123+456789=abcdef"
TENANT = "tenant+98765/secret=x"
SIGNATURE = "signature&4711/with+more"
SECRETS = (KEY, TENANT, SIGNATURE)


def spellings(secret: str) -> list[str]:
    """The secret as servers and their frameworks write it into JSON."""
    return [
        json.dumps(secret)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        secret.replace("+", "\\u002b").replace("&", "\\u0026").replace("=", "\\u003d"),
        "".join(f"\\u{ord(char):04X}" for char in secret),
        quote(secret, safe=""),
        b64encode(secret.encode()).decode(),
        b64encode(f"Bearer {secret}".encode()).decode(),
        secret.replace("&", "&amp;"),
    ]


class Echo(BaseHTTPRequestHandler):
    """Answers with the status that the prompt names; the body repeats the secrets in all spellings."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say(401 if "refuse" in self.path else 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._say(int(asked["messages"][-1]["content"]))

    def _say(self, status: int) -> None:
        sent = [
            self.headers["authorization"].removeprefix("Bearer "),
            self.headers["x-tenant"],
            parse_qs(urlsplit(self.path).query)["sig"][0],
        ]
        assert sent == list(SECRETS)
        words = " | ".join(spelt for secret in sent for spelt in spellings(secret))
        if status == 200:
            message = f'{{"role": "assistant", "content": "{words}"}}'
            choice = f'{{"index": 0, "finish_reason": "stop", "message": {message}}}'
            body = f'{{"choices": [{choice}], "model": "{spellings(KEY)[1]}", "usage": {{"prompt_tokens": 1}}}}'
        else:
            code, kind = spellings(KEY)[1], spellings(TENANT)[3]
            body = f'{{"error": {{"message": "{words}", "code": "{code}", "type": "{kind}"}}}}'
        raw = body.encode()
        self.send_response(status)
        self.send_header("content-length", str(len(raw)))
        self.send_header("x-echo", KEY)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002  the name is the base class's
        """Log nothing."""


@pytest.fixture
def echo() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def traces(text: str) -> list[str]:
    """The secrets, or parts of them, that a text contains in any spelling."""
    found = [spelt for secret in SECRETS for spelt in (secret, *spellings(secret)) if spelt in text]
    # A part of a secret must not appear either; these parts are in no other text.
    return found + [
        part for part in ("0123+456789", "456789=abc", "98765/sec", "98765\\/sec", "4711/with") if part in text
    ]


@pytest.mark.parametrize("output", ["out/results.jsonl", "out/results.parquet"])
def test_no_secret_reaches_a_file_or_the_terminal(
    output: str, echo: str, job: Job, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer or refusal of a run brings a secret into the results, report, status, log or a check."""
    for name, value in zip(("THE_KEY", "TENANT", "SIG"), SECRETS, strict=True):
        monkeypatch.setenv(name, value)
    (tmp_path / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": str(status)}) + "\n" for status in (200, 400, 422, 500, 200))
    )
    job["models"] = [
        {
            "name": "small",
            "endpoints": [
                {
                    "url": echo,
                    "api_key_env": "THE_KEY",
                    "headers": {"x-tenant": "${TENANT}"},
                    "query": {"sig": "${SIG}"},
                }
            ],
        }
    ]
    job |= {"plan": {"strategy": "pin", "model": "small"}, "router": {"kind": "random"}}
    job["dispatch"] = {"max_attempts": 1}
    job["output"] = {"path": output, "format": Path(output).suffix[1:]}
    path = written(job, tmp_path)
    for arguments in (
        ("check", path),
        ("check", path, "--json"),
        ("run", path, "--verbose", "--log-file", tmp_path / "run.log"),
        ("report", tmp_path / f"{output}.run", "--json"),
        ("status", tmp_path / f"{output}.run"),
    ):
        ended = command(*arguments)
        assert traces(ended.out + ended.err) == [], arguments
        assert ended.status in (0, 1), ended.err
    kept = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(kept) > 5
    for file in (*kept, tmp_path / "run.log"):
        assert traces(file.read_bytes().decode(errors="replace")) == [], file
    if output.endswith("jsonl"):
        rows = [json.loads(line) for line in (tmp_path / output).read_text().splitlines()]
        assert [row["status"] for row in rows] == ["ok", "failed", "failed", "failed", "ok"]
        for row in rows:
            assert traces(json.dumps(row)) == []
            assert traces(f"{row['content']} {row['error']}") == []
        assert rows[0]["content"] == " | ".join(["[key]"] * 8 * len(SECRETS))
