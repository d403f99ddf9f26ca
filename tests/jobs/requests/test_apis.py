"""Rows for every API in a whole run are sent to its path, answered, priced and written in every format."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch.costs.prices import Price
from tests.job_folder import ENDPOINTS, PRICES, JobFolder
from tests.rehearsed import serve

LINES: list[dict[str, Any]] = [
    {
        "custom_id": "r",
        "method": "POST",
        "url": "/v1/responses",
        "body": {"instructions": "Tag it.", "input": "Where is my parcel?", "max_output_tokens": 20},
    },
    {
        "custom_id": "i",
        "url": "https://api.example.com/v1/responses",
        "body": {"input": [{"role": "user", "content": [{"type": "input_text", "text": "And my other parcel?"}]}]},
    },
    {
        "custom_id": "c",
        "method": "post",
        "url": "/chat/completions",
        "body": {"messages": [{"role": "user", "content": "First railway?"}]},
    },
    {"custom_id": "p", "body": {"prompt": "Once upon a time", "max_tokens": 9}},
    {"custom_id": "e", "url": "/embeddings", "body": {"input": "Best cheese"}},
]
CONTENTS = ["Where is my parcel?", "And my other parcel?", "First railway?", "Once upon a time", None]


def run(tmp_path: Path, form: str) -> Path:
    """Run a job over LINES, check that every row is answered and priced, and return the output."""
    with serve(*ENDPOINTS) as served:
        folder = JobFolder(tmp_path, served)
        folder.write(LINES)
        output = tmp_path / f"results.{'parquet' if form == 'parquet' else 'jsonl'}"
        report = folder.run(folder.job(output={"path": str(output), "format": form}))
    assert (report.rows.ok, report.cost_is_complete) == (len(LINES), True)
    # The rows are split between the models by the length of the text that routers get.
    assert {name: model.rows for name, model in report.models.items()} == {"small": 3, "large": 2}
    return output


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_of_every_api_are_answered_and_priced(tmp_path: Path, form: str) -> None:
    """The content is the response's text, and the cost follows from its input and output tokens."""
    output = run(tmp_path, form)
    rows = (
        pq.read_table(output).to_pylist()
        if form == "parquet"
        else [json.loads(line, parse_float=Decimal) for line in output.read_text().splitlines()]
    )
    assert [row["content"] for row in rows] == CONTENTS
    for row in rows:
        listed = PRICES[row["model"]]
        price = Price(Decimal(listed["input"]).scaleb(-6), Decimal(listed["output"]).scaleb(-6))
        assert row["cost_usd"] == price.total(row["prompt_tokens"], row["completion_tokens"])
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"]) == (7, 5)


def test_openais_batch_format_has_the_response_whole(tmp_path: Path) -> None:
    """The body in the output is the server's answer, whatever the API."""
    lines = [json.loads(line) for line in run(tmp_path, "openai_batch").read_text().splitlines()]
    objects = [line["response"]["body"]["object"] for line in lines]
    assert objects == ["response", "response", "chat.completion", "text_completion", "list"]
    assert lines[0]["response"]["body"]["usage"]["output_tokens"] == 5
    assert lines[0]["response"]["request_id"].startswith("resp-")
