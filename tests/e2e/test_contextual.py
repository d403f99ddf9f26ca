"""A batch file for one model, sent where topic and language say."""

import json
from pathlib import Path
from typing import Any

from jobs.commands.run import run_job
from jobs.files.yaml_specs import load_job
from jobs.rehearsal.stand_ins import rehearsed
from schemas.openai_batch import BatchResultLine

CONTEXTUAL = Path(__file__).parents[2] / "examples" / "contextual"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_file_is_routed_by_what_its_rows_say(tmp_path: Path) -> None:
    """Legal questions, languages and wordings go to the large model, the rest to the small one, in OpenAI's format."""
    job = load_job(CONTEXTUAL / "job.yaml", [f"output.path={tmp_path / 'answers.jsonl'}"])
    with rehearsed(job) as rehearsal:
        report = run_job(rehearsal)

    asked = lines(CONTEXTUAL / "requests.jsonl")
    answers = [BatchResultLine.model_validate(line) for line in lines(Path(rehearsal.output.path))]
    assert [answer.custom_id for answer in answers] == [row["custom_id"] for row in asked]
    by_topic: dict[str, set[str]] = {}
    by_language: dict[str, set[str]] = {}
    for row, answer in zip(asked, answers, strict=True):
        assert answer.response is not None
        assert answer.response.body is not None
        by_topic.setdefault(row["topic"], set()).add(answer.response.body["model"])
        by_language.setdefault(row["language"], set()).add(answer.response.body["model"])
    assert by_topic["legal"] == by_language["fi"] == by_language["ja"] == {"gpt-4o"}
    assert by_language["fr"] == by_language["es"] == {"Qwen/Qwen3-8B"}
    assert by_topic["product"] == {"gpt-4o"}
    assert report.rows.ok == report.rows.total == len(asked)
    assert report.cost_is_complete
