"""Text from files and servers reaches a terminal only as visible characters."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unicodedata import category

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from jobs.terminal.html.report import render_html
from jobs.terminal.printable import console, printable
from jobs.terminal.streams import LastingStream
from tests.jobs.console_script import Job
from tests.test_security import report

ROOT = Path(__file__).parents[3]

TITLE = "\x1b]0;owned\x07"
CLIPBOARD = "\x1b]52;c;b3duZWQ=\x07"
HOSTILE = {
    "title": TITLE,
    "clipboard": CLIPBOARD,
    "colours": "\x1b[31mred",
    "C1": "\x9b31mred",
    "screen": "\x1b[2J\x1b[H",
    "carriage return": "innocent\rhostile",
    "backspaces": "a\b\b\bz",
    "bidi": "\u202egnp.exe\u202c",
    "isolates": "\u2066a\u2069",
    "zero width": "a\u200bb",
    "line separator": "a\u2028b",
    "delete": "a\x7fb",
    "tags": "\U000e0041",
}

# The sequences that Rich itself writes on a terminal: colours and cursor movements.
OURS = re.compile(r"\x1b\[[\d;]*m|\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r")


class Terminal(io.StringIO):
    """A text in memory that counts as a terminal, so that Rich writes colours."""

    def isatty(self) -> bool:
        return True


def harmless(text: str) -> bool:
    """Whether the text has only visible characters, spaces of any width, line breaks and tabs."""
    return all(char.isprintable() or char in "\n\t" or category(char) == "Zs" for char in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_invisible_characters_are_escaped(name: str) -> None:
    """They are escaped as in JSON, so that no information is lost and JSON keeps its meaning."""
    text = printable(HOSTILE[name])
    assert harmless(text)
    assert json.loads(f'"{text}"') == HOSTILE[name]


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    """JSON with any text has the same value after escaping, whether or not it was written in ASCII."""
    for ascii_only in (False, True):
        shown = printable(json.dumps({"a": text}, ensure_ascii=ascii_only, indent=2))
        assert harmless(shown)
        assert json.loads(shown) == {"a": text}


@pytest.mark.parametrize("text", ["plain", "naïve café", "日本語　全角", "1 000", "مرحبا", "हिन्दी", "é👍🏽", "a\tb\nc"])
def test_the_languages_of_the_world_are_left_alone(text: str) -> None:
    """Letters, combining signs, wide spaces and emoji are there to be seen."""
    assert printable(text) == text


@pytest.mark.parametrize("name", HOSTILE)
def test_streams_and_tables_escape_control_sequences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written text, text in a table and text printed as it is are escaped; only Rich's own colours pass."""
    hostile = HOSTILE[name]
    written = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = LastingStream(written)
    stream.write(f"batchrouter: {hostile}\n")
    stream.writelines([hostile])
    assert harmless(written.getvalue())
    monkeypatch.setattr(sys, "stdout", stream)
    table = Table(hostile)
    table.add_row(Text(f"x{hostile}", "bold red"))
    shown = console()
    shown.print(table)
    shown.print(f"{hostile} as it is", markup=False)
    out = written.getvalue()
    assert "\x1b[" in out
    assert harmless(OURS.sub("", out)) or name == "carriage return"
    assert "\x1b]" not in out
    assert "\x1b[2J" not in out


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_has_no_invisible_characters(name: str) -> None:
    """Direction overrides would reverse the figures beside a name."""
    assert harmless(render_html(report(HOSTILE[name])))


def on_a_terminal(*arguments: str, folder: Path) -> tuple[int, str]:
    """Run the command with a terminal for its output and errors; return its status, and all that it wrote."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    said = bytearray()
    while True:
        try:
            chunk = os.read(parent, 65536)
        except OSError:
            break
        if not chunk:
            break
        said += chunk
    os.close(parent)
    return process.wait(60), said.decode(errors="replace")


def hostile_job(job: Job, folder: Path) -> dict[str, Any]:
    """A job that runs and whose name, ids, columns, file and aliases are hostile."""
    name = f"{TITLE}{HOSTILE['C1']}"
    rows = [{"id": f"r{number}{name}", "prompt": "hi", f"column{name}": 1} for number in range(3)]
    rows.append({"id": f"bad{name}", "prompt": 5, f"column{name}": 1})
    path = folder / f"rows{HOSTILE['colours']}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job["name"] = f"job{name}"
    job["input"]["path"] = path.name
    for model, url in zip(job["models"], ("a", "b"), strict=True):
        model["aliases"] = [f"{url}{name}"]
    return job


@pytest.mark.real
def test_a_job_cannot_control_the_terminal(job: Job, tmp_path: Path) -> None:
    """This holds for `check`, `run`, `status` and refusals; only Rich writes colours and moves the cursor."""
    good = hostile_job(job, tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(good))
    wrong = json.loads(json.dumps(good)) | {f"key{TITLE}": 1}
    (tmp_path / f"wrong{CLIPBOARD}.yaml").write_text(yaml.safe_dump(wrong))
    url = json.loads(json.dumps(good))
    url["models"][0]["endpoints"][0] = {"url": f"http://127.0.0.1:9/{TITLE}"}
    (tmp_path / "url.yaml").write_text(yaml.safe_dump(url))
    for arguments in (
        ("check", "job.yaml"),
        ("run", "job.yaml"),
        ("run", f"wrong{CLIPBOARD}.yaml"),
        ("run", "url.yaml"),
        ("run", f"missing{TITLE}.yaml"),
        ("check", "job.yaml", "--json"),
        ("check", "job.yaml", "--set", f"a{TITLE}=1"),
        ("check", f"--no-such-option{TITLE}"),
        (f"no-such-command{TITLE}",),
        ("status", f"nowhere{TITLE}"),
    ):
        status, said = on_a_terminal(*arguments, folder=tmp_path)
        assert status in (0, 1, 2), (arguments, said)
        assert "Traceback" not in said, said
        assert harmless(OURS.sub("", said)), (arguments, OURS.sub("", said))
        for sequence in ("\x1b]", "\x9b", "\x07"):
            assert sequence not in said, (arguments, said)
