"""Members of a message other than its role and content."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from batch.reading.notes import Note, notes_from_metadata
from batch.reading.read import read_shard
from batch.reading.shards import find_shards
from schemas.job import InputSpec
from tests.reading.rows import count_words

WILDCHAT = {"content": "hi", "role": "user", "hashed_ip": "x", "header": {"a": 1}, "toxic": False, "language": None}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Note]]:
    """The messages that are sent, and the notes about their members."""
    path = folder / "in.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    spec = InputSpec(path=str(path))
    (shard,) = find_shards(spec, folder / "spool")
    table = read_shard(shard, spec, count_words)
    notes = [note for note in notes_from_metadata(table.schema.metadata) if note.code == "message_member"]
    return [orjson.loads(body)["messages"] for body in table["body"].to_pylist()], notes


@pytest.mark.parametrize("column", ["messages", "prompt", "conversation"])
def test_members_that_no_api_knows_are_sent_and_named_once(tmp_path: Path, column: str) -> None:
    """This holds for any column with a conversation; a null is not sent, so it is not named."""
    sent, notes = read(tmp_path, [{column: [WILDCHAT, {"role": "user", "content": "b", "weight": 1}]}] * 3)
    assert sent[0][0]["toxic"] is False
    told = [(note.text.split("`")[1], note.rows, note.example) for note in notes]
    assert told == [(name, 3, "in.jsonl:1") for name in ("hashed_ip", "header", "toxic", "weight")]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "a", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
        {"role": "tool", "content": "1", "tool_call_id": "c"},
        {"role": "assistant", "content": "x", "reasoning_content": "y", "prefix": True},
        {"role": "user", "content": "a", "cache_control": {"type": "ephemeral"}},
    ],
)
def test_members_that_a_provider_knows_are_not_named(tmp_path: Path, message: dict[str, Any]) -> None:
    """These are OpenAI's own members and other providers' extensions."""
    sent, notes = read(tmp_path, [{"messages": [message, {"role": "user", "content": "go on"}]}])
    assert notes == []
    assert sent[0][0].keys() == {key for key, value in message.items() if value is not None or key == "content"}
