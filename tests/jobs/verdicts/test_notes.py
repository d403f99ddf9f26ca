"""`check`, `estimate` and `run` have the same notes on the rows."""

import json
from pathlib import Path

import pytest

from tests.jobs.console_script import Command, Job, written

ROWS = [
    {"messages": [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "1, 2,"}]},
    {"messages": [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "1,"}]},
]
NOTE = (
    "the conversation ends with an assistant's turn, which some servers continue and others refuse "
    "(2 rows, the first is prompts.jsonl:1)"
)


def test_check_estimate_and_report_have_the_same_notes(command: Command, job: Job, tmp_path: Path) -> None:
    """The note, its number of rows and its example are equal in the JSON of all three."""
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    path = written(job, tmp_path)
    for name in ("check", "estimate", "run"):
        ended = command(name, path, "--json")
        assert ended.status == 0, ended.err
        assert [note for note in json.loads(ended.out)["notes"] if "assistant" in note] == [NOTE], name


@pytest.mark.parametrize("name", ["check", "estimate", "run"])
def test_the_console_shows_a_note_once(command: Command, job: Job, tmp_path: Path, name: str) -> None:
    """A note on many rows is shown once, on the console and on the HTML page."""
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    ended = command(name, written(job, tmp_path))
    assert " ".join((ended.out + ended.err).split()).count("ends with an assistant") == 1
    if name == "run":
        page = (tmp_path / "out" / "results.jsonl.run" / "report.html").read_text()
        assert page.count("ends with an assistant") == 1
