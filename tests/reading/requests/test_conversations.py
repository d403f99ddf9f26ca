from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.job import InputSpec
from schemas.openai_batch import CHAT_URL
from tests.reading.requests.shaping import refused, shape
from tests.reading.rows import body, read_all, read_lines

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "one"},
    {"from": "gpt", "value": "two"},
    {"from": "human", "value": "three"},
]
COLUMNS = {key: [message[key] for message in TALK] for key in ("role", "content")}


@pytest.mark.parametrize("column", ["messages", "prompt", "input", "conversations", "conversation"])
@pytest.mark.parametrize("talk", [TALK, SHAREGPT])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_conversation_is_one_wherever_it_stands(column: str, talk: list[dict[str, str]], as_text: bool) -> None:
    """A conversation is a list or its JSON text, with OpenAI's or ShareGPT's keys, in any column of prompts."""
    shaped = shape({column: orjson.dumps(talk).decode() if as_text else talk, "topic": "x"}, params={"max_tokens": 5})
    assert (shaped.url, shaped.body) == (CHAT_URL, {"messages": TALK, "max_tokens": 5})
    assert (shaped.text, shaped.counted) == ("one\nthree", "Be brief.\none\ntwo\nthree")
    assert column in shaped.used
    assert "topic" not in shaped.used


def test_conversations_have_their_rows_parameters_and_system_message() -> None:
    """A row's parameters, model and system message apply to any conversation as they do to `messages`."""
    row = {"prompt": TALK[1:], "max_tokens": 7, "model": "m", "system": "S"}
    shaped = shape(row)
    assert shaped.body["messages"][0] == {"role": "system", "content": "S"}
    assert (shaped.max_tokens, shaped.asked) == (7, "m")


@pytest.mark.parametrize(
    ("speaker", "role"),
    [("Human", "user"), ("chatgpt", "assistant"), ("bard", "assistant"), ("model", "assistant"), ("user", "user")],
)
def test_sharegpts_many_names_have_a_role(speaker: str, role: str) -> None:
    """Files in ShareGPT's format have several names for the same speaker, also under OpenAI's keys."""
    talk = [{"from": speaker, "value": "a"}, {"from": "human", "value": "b", "weight": 1}]
    assert shape({"conversations": talk}).body["messages"][0] == {"role": role, "content": "a"}
    renamed = [{"role": speaker.lower(), "content": "a"}, {"role": "human", "content": "b"}]
    assert shape({"messages": renamed}).body["messages"][0] == {"role": role, "content": "a"}


def test_hugging_faces_sequence_of_messages_is_a_list_of_messages() -> None:
    """Hugging Face's data sets store a list of objects as an object of lists."""
    assert shape({"messages": COLUMNS}).body == {"messages": TALK}
    sharegpt = {key: [message[key] for message in SHAREGPT] for key in ("from", "value")}
    assert shape({"conversations": sharegpt}).body == {"messages": TALK}


def test_a_prompt_that_begins_with_a_bracket_is_a_prompt() -> None:
    """Only a list of messages is a conversation; other JSON, and text that merely looks like it, is a prompt."""
    for prompt in ("[INST] Why? [/INST]", '["a", "b"]', '[{"name": "x"}]', "[]", "[1, 2]", '{"role": "user"}'):
        assert shape({"prompt": prompt}).body == {"messages": [{"role": "user", "content": prompt}]}


def test_a_conversation_beside_another_prompt_is_data() -> None:
    """`conversations` is used only if the row has no messages, prompt or input."""
    shaped = shape({"prompt": "a", "conversations": SHAREGPT})
    assert shaped.text == "a"
    assert "conversations" not in shaped.used
    assert shape({"messages": "", "prompt": "a"}).text == "a"


@pytest.mark.parametrize(
    ("record", "kind", "said"),
    [
        ({"messages": "hello"}, "wrong_type", r'messages must be a list .* rename .* input\.prompt: "\{messages\}"'),
        ({"conversation": "Human: hi"}, "wrong_type", "conversation must be a list of messages, or its JSON"),
        ({"messages": "[{'role': 'user', 'content': 'a'}]"}, "wrong_type", "not JSON; it looks like Python's notation"),
        ({"messages": '[{"role": "user"'}, "wrong_type", "messages is text that is not JSON'"),
        ({"messages": {"role": "user", "content": "a"}}, "wrong_type", "messages must be a list .*, not an object"),
        ({"messages": {"role": ["user"], "content": ["a", "b"]}}, "wrong_type", "messages must be a list"),
        ({"messages": 5}, "wrong_type", "not a number"),
        ({"conversations": [{"from": "tool", "value": "a"}]}, "unsupported", r"conversations\[0\]\.from is nobody"),
        (
            {"conversations": [{"from": "human", "value": 5}]},
            "wrong_type",
            r"conversations\[0\]\.value must be a string",
        ),
        ({"conversations": [{"text": "a"}]}, "wrong_type", r"messages\[0\] must be an object with a role"),
        ({"conversations": []}, "empty_prompt", "messages are empty"),
        ({"prompt": ["a", "b"]}, "wrong_type", r'not a list of strings; input\.prompt: "\{prompt\[0\]\}" takes a part'),
        ({"prompt": {"text": "a"}}, "wrong_type", r'not an object; input\.prompt: "\{prompt\.name\}" takes a part'),
        ({"prompt": [TALK[1], "a"]}, "wrong_type", "prompt must be a string, a list of messages or token ids"),
        ({"prompt": []}, "wrong_type", "prompt must be a string"),
    ],
)
def test_a_wrong_conversation_is_refused_with_a_remedy(record: dict[str, Any], kind: str, said: str) -> None:
    """The message is one line that names the column and the remedy."""
    refused(record, kind, said)


def test_null_members_of_a_message_are_padding() -> None:
    """Tables pad messages with nulls, which servers refuse, so nulls are left out, except a null content."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    padded: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "text", "text": "a", "image_url": None}], "name": None},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "index": None}], "tool_call_id": None},
        {"role": "tool", "content": "42", "tool_calls": None, "tool_call_id": "c"},
    ]
    plain = [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
    ]
    for record in ({"messages": padded}, {"custom_id": "a", "body": {"messages": padded}}, {"prompt": padded}):
        assert shape(record).body == {"messages": plain}
    assert "name" in padded[0]


def test_structs_of_nulls_in_parquet_are_left_out(tmp_path: Path) -> None:
    """A struct has every field that any row has; one whose fields are all null was never set."""
    rows = [
        {
            "messages": [{"role": "user", "content": "a", "audio": {"id": None}}],
            "params": {"max_tokens": 5, "response_format": {"type": None, "json_schema": {"name": None}}},
        },
        {
            "messages": [{"role": "user", "content": "b", "audio": {"id": "x"}}],
            "params": {"max_tokens": None, "response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
        },
        {"messages": [{"role": "user", "content": "c", "audio": None}], "params": {"max_tokens": None}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    first, second, third = read_all(InputSpec(path=str(tmp_path / "in.parquet")), tmp_path / "spool")
    assert body(first) == {"messages": [{"role": "user", "content": "a"}], "max_tokens": 5}
    assert body(second)["response_format"] == {"type": "json_schema", "json_schema": {"name": "s"}}
    assert body(second)["messages"][0]["audio"] == {"id": "x"}
    assert body(third) == {"messages": [{"role": "user", "content": "c"}]}


def test_chats_fit_into_a_csv(tmp_path: Path) -> None:
    """A cell with the JSON of messages is a conversation, and a `params` column may hold JSON too."""
    cell = orjson.dumps(TALK[1:2]).decode().replace('"', '""')
    path = tmp_path / "in.csv"
    path.write_text(f'id,messages,params\na,"{cell}","{{""max_tokens"": 5}}"\n')
    (row,) = read_all(InputSpec(path=str(path)), tmp_path / "spool")
    assert body(row) == {"messages": TALK[1:2], "max_tokens": 5}


def test_a_column_that_is_nan_is_not_set(tmp_path: Path) -> None:
    """Tables write NaN into the JSON of a row that lacks the column."""
    lines = [
        b'{"id": "a", "messages": NaN, "prompt": "one", "conversations": NaN}',
        b'{"id": "b", "messages": [{"role": "user", "content": "two"}], "prompt": NaN, "x": NaN}',
        b'{"id": "c", "prompt": NaN}',
    ]
    one, two, none = read_lines(tmp_path, lines)
    assert (one["text"], two["text"]) == ("one", "two")
    assert none["error_kind"] == "missing_column"


def test_maps_in_parquet_are_objects(tmp_path: Path) -> None:
    """Spark writes `params` as a map of one number type; whole numbers in it are sent as whole numbers."""
    params = pa.array([[("temperature", 0.5), ("max_tokens", 5.0)], None], pa.map_(pa.string(), pa.float64()))
    meta = pa.array([[("lang", "fr")], []], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"prompt": ["a", "b"], "params": params, "meta": meta}), tmp_path / "in.parquet")
    first, second = read_all(InputSpec(path=str(tmp_path / "in.parquet")), tmp_path / "spool")
    assert body(first) == {"messages": [{"role": "user", "content": "a"}], "temperature": 0.5, "max_tokens": 5}
    assert (first["max_tokens"], type(body(first)["max_tokens"])) == (5, int)
    assert body(second) == {"messages": [{"role": "user", "content": "b"}]}
    spec = InputSpec(path=str(tmp_path / "in.parquet"), prompt="{prompt}|{meta.lang?}")
    assert [row["text"] for row in read_all(spec, tmp_path / "again")] == ["a|fr", "b|"]
